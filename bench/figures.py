"""Figures of an experiment: accuracy against what it cost, and what a swept setting does to it.

One colour an algorithm, everywhere the same; its variants differ in line style. Lines are means over seeds, bands
reach from the lowest seed to the highest.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.arms import Arm
from bench.errors import InputError
from bench.results import FALLING, Row, write_whole

COLORS = {  # after Okabe and Ito, and Paul Tol: told apart by the colour-blind, too
    "sgd": "#333333",
    "sparse": "#0072B2",
    "lasg": "#56B4E9",
    "sasg": "#332288",
    "signsgd": "#AA4499",
    "signsgd_mv": "#E69F00",
    "signum": "#DDCC77",
    "signum_mv": "#999933",
    "ef_signsgd": "#CC79A7",
    "sparse_signsgd": "#D55E00",
    "gspar": "#009E73",
    "gspar_closed": "#44BB99",
    "unisp": "#BBBBBB",
    "random_k": "#777777",
    "qsgd": "#EE3377",
    "terngrad": "#AA7700",
}
OTHERS = "#117733"
STYLES: Any = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
TITLES = {
    "round": "rounds",
    "uploads": "uploads",
    "uplink_bits": "uplink bits",
    "uplink_bits_paper": "uplink bits, the papers' count",
    "data_passes": "data passes",
    "dense_passes": "data passes × density",
    "measured_ms": "milliseconds",
    "total_bits": "bits both ways",
    "modelled_s": "modelled seconds",
    "test_accuracy": "test accuracy",
    "test_top5_accuracy": "top-5 test accuracy",
    "train_loss": "training loss",
    "suboptimality": "suboptimality",
    "ridge": "λ₂ =",
    "factor": "shrunk by",
    "threshold": "shrunk below",
    "num_byzantine": "Byzantine workers f",
    "workers": "workers M",
}
RC: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.3,
    "grid.color": "#cccccc",
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}


def figure(spec: Mapping[str, Any], arms: Sequence[Arm]) -> Figure:
    """The figure that an experiment's `figure:` describes.

    Raises:
        InputError: no such kind of figure.
    """
    kinds = {"curves": curves, "sweep": sweep}
    if spec["kind"] not in kinds:
        raise InputError(f"figure.kind: {spec['kind']!r}; one of {', '.join(kinds)} is needed")
    options = {key: value for key, value in spec.items() if key != "kind"}
    with matplotlib.rc_context(RC):
        return kinds[spec["kind"]](arms, **options)


def curves(
    arms: Sequence[Arm],
    x: Sequence[str],
    y: str = "test_accuracy",
    y_limits: tuple[float, float] | None = None,
    rows: str | None = None,
    columns: str | None = None,
    best: str | None = None,
) -> Figure:
    """A line for each arm.

    Args:
        arms: to be drawn.
        x: costs, a panel for each: side by side, or below one another where `columns` is given.
        y: a column of the history.
        y_limits: of its axis.
        rows, columns: settings that the arms are swept over, a panel for each of their values.
        best: a setting that arms are tuned over: of those that differ in nothing else, the one that ends best is drawn.
    """
    arms = _tuned(arms, best, y) if best else arms
    down, across = _values(arms, rows), _values(arms, columns)
    lines = [(value, cost) for value in down for cost in (x if columns else [""])]
    places = [(value, cost) for value in across for cost in ([""] if columns else x)]
    drawing = Figure(figsize=(2.6 * len(places) + 1.5, 2.3 * len(lines) + 0.6), layout="constrained")
    grid = drawing.subplots(len(lines), len(places), sharey="row", squeeze=False)
    told = {key for key in arms[0].settings if len(_values(arms, key)) > 1} - {rows, columns, best}
    shown: dict[str, Any] = {}
    for (down_value, line_cost), panels in zip(lines, grid, strict=True):
        for (across_value, place_cost), axes in zip(places, panels, strict=True):
            cost = line_cost or place_cost
            wanted = {rows: down_value, columns: across_value}
            picked = [arm for arm in arms if all(arm.settings[key] == v for key, v in wanted.items() if key)]
            shown |= _draw(axes, picked, cost, y, told)
            titles = [f"{TITLES.get(key, key)} {float(value):.3g}" for key, value in wanted.items() if key]
            axes.set(xlabel=TITLES[cost], title=", ".join(titles))
        panels[0].set_ylabel(TITLES[y])
        if y_limits:
            panels[0].set_ylim(*y_limits)
    drawing.legend(shown.values(), shown.keys(), loc="outside right center")
    return drawing


def _tuned(arms: Sequence[Arm], setting: str, y: str) -> list[Arm]:
    """The arms that end best, over the values of a setting."""

    def end(arm: Arm) -> float:
        summaries = [run.summary() for run in arm.runs]
        worst = np.inf if y in FALLING else -np.inf
        return float(np.mean([worst if "diverged" in summary else summary[y] for summary in summaries]))

    groups: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in arms:
        others = tuple((key, value) for key, value in arm.settings.items() if key != setting)
        groups.setdefault((arm.name, *others), []).append(arm)
    return [(min if y in FALLING else max)(group, key=end) for group in groups.values()]


def _values(arms: Sequence[Arm], setting: str | None) -> list[str]:
    """The values of a setting, in order; one that stands for all where there is none."""
    return list(dict.fromkeys(arm.settings[setting] for arm in arms)) if setting else [""]


def _draw(axes: Axes, arms: Sequence[Arm], cost: str, y: str, told: set[str]) -> dict[str, Any]:
    """A panel of `curves`; its lines by label, which has those settings that are to be told."""
    lines: dict[str, Any] = {}
    num_of_color: dict[str, int] = {}
    for arm in arms:
        color = _color(arm)
        num_of_color[color] = num_of_color.get(color, -1) + 1
        style = STYLES[num_of_color[color] % len(STYLES)]
        histories = [run.history() for run in arm.runs if "diverged" not in run.summary()]
        if not histories:
            continue
        density = arm.runs[0].config()["algorithm"].get("compressor", {}).get("density", 1.0)
        across = np.mean([[_cost(row, cost, density) for row in history] for history in histories], axis=0)
        values = np.array([[row[y] for row in history] for history in histories])
        lost = len(arm.runs) - len(histories)
        label = ",".join([arm.name, *(f"{k}={v}" for k, v in arm.settings.items() if k in told)])
        label = f"{label} ({lost} of {len(arm.runs)} diverged)" if lost else label
        (lines[label],) = axes.plot(across, values.mean(axis=0), linestyle=style, color=color)
        axes.fill_between(across, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
    axes.set_xscale("log" if cost.endswith(("_bits", "_s", "bits_paper")) or cost == "dense_passes" else "linear")
    axes.set_yscale("log" if y == "suboptimality" else "linear")
    axes.xaxis.set_minor_formatter(NullFormatter())  # labels between powers of ten would run into each other
    return lines


def sweep(
    arms: Sequence[Arm],
    x: str,
    y: Sequence[str] = ("test_accuracy",),
    panels: str | None = None,
) -> Figure:
    """Figures at the end of runs against a swept setting `x`, a line for each name. A cross: a run that diverged.

    Args:
        arms: labelled by what is swept.
        x: the setting, a number.
        y: columns of the history, a panel each.
        panels: another setting, a panel for each of its values.
    """
    values = list(dict.fromkeys(arm.settings[panels] for arm in arms)) if panels else [""]
    drawing = Figure(figsize=(2.6 * len(values) * len(y) + 1.5, 2.7), layout="constrained")
    columns = [(value, metric) for value in values for metric in y]
    every_axes = drawing.subplots(1, len(columns), squeeze=False, sharey=len(y) == 1)[0]
    for axes, (value, metric) in zip(every_axes, columns, strict=True):
        shown = [arm for arm in arms if not panels or arm.settings[panels] == value]
        for name in dict.fromkeys(arm.name for arm in shown):
            _line(axes, [arm for arm in shown if arm.name == name], x, metric)
        axes.set(xlabel=TITLES.get(x, x), ylabel=TITLES[metric], title=value)
        axes.label_outer()
        ticks = sorted({float(arm.settings[x]) for arm in shown})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    drawing.legend(*every_axes[0].get_legend_handles_labels(), loc="outside right center")
    return drawing


def _line(axes: Axes, arms: Sequence[Arm], x: str, y: str) -> None:
    arms = sorted(arms, key=lambda arm: float(arm.settings[x]))
    color, at = _color(arms[0]), np.array([float(arm.settings[x]) for arm in arms])
    summaries = [[run.summary() for run in arm.runs] for arm in arms]
    final = [[summary[y] for summary in runs if "diverged" not in summary] or [np.nan] for runs in summaries]
    mean = np.array([np.mean(values) for values in final])
    axes.plot(at, mean, color=color, marker="o", markersize=3, label=arms[0].name)
    axes.fill_between(at, [min(v) for v in final], [max(v) for v in final], color=color, alpha=0.15, linewidth=0)
    crossed = [place for place, runs in zip(at, summaries, strict=True) if any("diverged" in run for run in runs)]
    axes.plot(crossed, [0.03] * len(crossed), "x", color=color, transform=axes.get_xaxis_transform())


def _color(arm: Arm) -> str:
    return COLORS.get(arm.runs[0].config()["algorithm"]["name"], OTHERS)


def _cost(row: Row, name: str, density: float) -> float:
    """What an evaluation had cost by then. Some costs no history holds as such."""
    made = {
        "dense_passes": lambda: row["data_passes"] * density,
        "measured_ms": lambda: 1e3 * row["measured_s"],
    }
    return made[name]() if name in made else row[name]


def save(drawing: Figure, folder: Path, source: str) -> None:
    """figure.png and figure.pdf, the same bytes for the same data. The PNG says what `source` it shows."""
    with matplotlib.rc_context(RC):
        for suffix, metadata in (
            ("png", {"Software": None, "Source": source}),
            ("pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        ):
            content = BytesIO()
            drawing.savefig(content, format=suffix, dpi=160, metadata=metadata)
            write_whole(folder / f"figure.{suffix}", content.getvalue())


def digest(spec: Mapping[str, Any], arms: Sequence[Arm]) -> str:
    """A hash of all that a figure shows."""
    shown = [[arm.label, [[run.history(), run.summary().get("diverged")] for run in arm.runs]] for arm in arms]
    return hashlib.sha256(json.dumps([spec, shown]).encode()).hexdigest()
