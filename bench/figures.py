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
from bench.results import Row, write_whole

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
}
OTHERS = "#117733"
STYLES: Any = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
TITLES = {
    "round": "rounds",
    "uploads": "uploads",
    "uplink_bits": "uplink bits",
    "total_bits": "uplink + downlink bits",
    "modelled_s": "modelled seconds",
    "test_accuracy": "test accuracy",
    "test_top5_accuracy": "top-5 test accuracy",
    "train_loss": "training loss",
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
    arms: Sequence[Arm], x: Sequence[str], y: str = "test_accuracy", y_limits: tuple[float, float] | None = None
) -> Figure:
    """A panel for each cost in `x`, a line for each arm."""
    drawing = Figure(figsize=(2.6 * len(x) + 1.5, 2.9), layout="constrained")
    panels = drawing.subplots(1, len(x), sharey=True, squeeze=False)[0]
    for axes, cost in zip(panels, x, strict=True):
        num_of_color: dict[str, int] = {}
        for arm in arms:
            color = _color(arm)
            num_of_color[color] = num_of_color.get(color, -1) + 1
            style = STYLES[num_of_color[color] % len(STYLES)]
            histories = [run.history() for run in arm.runs if "diverged" not in run.summary()]
            if not histories:
                continue
            across = np.mean([[_cost(row, cost) for row in history] for history in histories], axis=0)
            values = np.array([[row[y] for row in history] for history in histories])
            lost = len(arm.runs) - len(histories)
            label = f"{arm.label} ({lost} of {len(arm.runs)} diverged)" if lost else arm.label
            axes.plot(across, values.mean(axis=0), linestyle=style, color=color, label=label)
            axes.fill_between(across, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel=TITLES[cost], xscale="log" if cost.endswith(("_bits", "_s")) else "linear")
        axes.xaxis.set_minor_formatter(NullFormatter())  # labels between powers of ten would run into each other
    panels[0].set_ylabel(TITLES[y])
    if y_limits:
        panels[0].set_ylim(*y_limits)
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return drawing


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


def _cost(row: Row, name: str) -> float:
    return row["uplink_bits"] + row["downlink_bits"] if name == "total_bits" else row[name]


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
