"""Figures of an experiment: accuracy against its costs, and the effect of a swept setting.

Each algorithm has one colour in all figures; its variants differ in line style. Lines are means over seeds, or medians
where an experiment's file asks for them; bands reach from the lowest seed to the highest; a dotted line is the target.
The rest of the style is in paper.mplstyle.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.errors import InputError
from bench.findings.asked import made
from bench.findings.experiments import Arm, Experiment
from bench.findings.look import TITLES, color, shortest
from bench.findings.scales import scale
from bench.findings.tradeoff import tradeoff
from bench.findings.tuning import Tuned
from bench.findings.variance import write_variances
from bench.runs.columns import Row
from bench.runs.results import write_whole
from bench.traffic import Traffic

LOOK = Path(__file__).with_name("paper.mplstyle")
TRAFFIC = tuple(field.name for field in fields(Traffic))
UNDRAWN = ("waited_s", "compute_s", "compression_s", "sent_bytes", "received_bytes", *TRAFFIC)
"""Columns that no figure shows."""
CENTERS = {"mean": np.mean, "median": np.median}
FEW = 16
"""Up to so many evaluations are marked on a line."""
DASHES: Any = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))


def figure(experiment: Experiment) -> Figure:
    """Draw the figure that an experiment's file describes under `figure:`.

    Raises:
        InputError: the file describes no figure, or one that cannot be drawn.
    """
    if not (asked := experiment.spec.get("figure")):
        raise InputError(f"experiment: {experiment.name!r}; its file needs a figure: entry")
    with matplotlib.style.context(LOOK):
        return made("figure", asked, {"curves": curves, "sweep": sweep, "tradeoff": tradeoff}, experiment.complete)


def curves(
    arms: Sequence[Arm],
    x: Sequence[str],
    y: Sequence[str] = ("test_accuracy",),
    limits: Mapping[str, tuple[float, float]] | None = None,
    rows: str | None = None,
    columns: str | None = None,
    best: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    log: Sequence[str] = (),
    center: str = "mean",
    variances: bool = False,
) -> Figure:
    """Draw a line for each arm.

    Args:
        arms: the arms to draw.
        x: costs, one panel each: side by side, or below one another if `columns` or `groups` are given.
        y: columns of the history, one row of panels each.
        limits: limits of the axes, by column of the history; the other axis fits what they leave visible.
        rows, columns: swept settings, one row or column of panels for each of their values.
        best: a tuned setting; among arms that differ in nothing else, only the one with the best final value of the
            first `y` is drawn.
        groups: names of arms by the title of a panel; one column of panels each, with a legend of its own.
        log: columns with logarithmic axes besides those that always have one.
        center: of the seeds, mean or median.
        variances: whether to write var and the density of every compressor into its panels.

    Raises:
        InputError: none of a group's arms has a complete run; `center` has another value.
    """
    if center not in CENTERS:
        raise InputError(f"figure.center: {center!r}; one of {', '.join(CENTERS)} is needed")
    arms = Tuned(best, y[0]).best(arms) if best else arms
    there = list(dict.fromkeys(arm.name for arm in arms))
    for title, names in (groups or {}).items():
        if not set(names) & set(there):
            raise InputError(
                f"figure.groups.{title}: {', '.join(names)}; one that ran is needed, of {', '.join(there)}"
            )
    down, across = _values(arms, rows), list(groups) if groups else _values(arms, columns)
    lines = [(metric, value, cost) for metric in y for value in down for cost in (x if columns or groups else [""])]
    places = [(value, cost) for value in across for cost in ([""] if columns or groups else x)]
    width = 2.0 if groups else 2.6
    drawing = Figure(figsize=(width * len(places) + 1.5, 2.3 * len(lines) + 0.6), layout="constrained")
    grid = drawing.subplots(len(lines), len(places), sharey="row", squeeze=False)
    looks = _looks(arms, {rows, columns, best}, best, y[0])
    for (metric, down_value, line_cost), panels in zip(lines, grid, strict=True):
        for (across_value, place_cost), axes in zip(places, panels, strict=True):
            cost = line_cost or place_cost
            wanted = {rows: down_value, columns: across_value if columns else ""}
            picked = [arm for arm in arms if all(arm.settings[key] == v for key, v in wanted.items() if key)]
            picked = [arm for arm in picked if not groups or arm.name in groups[across_value]]
            _draw(axes, picked, cost, metric, looks, center)
            if variances:
                write_variances(axes, picked, [looks[arm.label][1] for arm in picked])
            titles = [f"{TITLES.get(key, key)} {shortest(value)}" for key, value in wanted.items() if key]
            axes.set(xlabel=TITLES[cost], title=across_value if groups else ", ".join(titles))
            scale(axes, "x", cost, log)
            scale(axes, "y", metric, log)
            for shown, limit in ((axes.set_xlim, cost), (axes.set_ylim, metric)):
                if limits and limit in limits:
                    shown(*limits[limit])
        _fit(panels, metric in (limits or {}), any((line_cost or cost) in (limits or {}) for _, cost in places))
        for axes, (_, place_cost) in zip(panels, places, strict=True):
            _broaden(axes)
            _mark(axes, arms, line_cost or place_cost, metric)
        panels[0].set_ylabel(TITLES[metric])
    if groups:
        for axes in grid[-1]:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25))
    else:
        _name_lines(drawing, grid)
    return drawing


def sweep(
    arms: Sequence[Arm],
    x: str,
    y: Sequence[str] = ("test_accuracy",),
    panels: str | None = None,
    best: str | None = None,
    log: Sequence[str] = (),
) -> Figure:
    """Draw final values against a swept setting `x`, a line for each arm's name. A cross marks a diverged run.

    Args:
        arms: with the swept settings in their labels.
        x: the swept setting, a number.
        y: columns of the history, one panel each.
        panels: another swept setting, one panel for each of its values.
        best: a tuned setting; among arms that differ in nothing else, only the one with the best final value of the
            first `y` is drawn.
        log: settings with a logarithmic axis.
    """
    arms = Tuned(best, y[0]).best(arms) if best else arms
    values, names = _values(arms, panels), list(dict.fromkeys(arm.name for arm in arms))
    shades = [next(color(arm.algorithm) for arm in arms if arm.name == name) for name in names]
    dashes = {name: DASHES[shades[:at].count(shades[at]) % len(DASHES)] for at, name in enumerate(names)}
    drawing = Figure(figsize=(2.6 * len(values) * len(y) + 1.5, 2.7), layout="constrained")
    columns = [(value, metric) for value in values for metric in y]
    grid = drawing.subplots(1, len(columns), squeeze=False, sharey=len(y) == 1)
    for axes, (value, metric) in zip(grid[0], columns, strict=True):
        shown = [arm for arm in arms if not panels or arm.settings[panels] == value]
        for name in dict.fromkeys(arm.name for arm in shown):
            _line(axes, [arm for arm in shown if arm.name == name], x, metric, dashes[name])
        title = f"{TITLES[panels]} {value}" if panels in TITLES else value
        axes.set(xlabel=TITLES.get(x, x), ylabel=TITLES[metric], title=title)
        scale(axes, "y", metric, ())
        if x in log:
            axes.set_xscale("log")
        if len(y) == 1:  # panels share their axes
            axes.label_outer()
        ticks = sorted({float(arm.settings[x]) for arm in shown})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        _mark(axes, shown, x, metric)
    _name_lines(drawing, grid)
    return drawing


def _values(arms: Sequence[Arm], setting: str | None) -> list[str]:
    """The values of a setting, in order of appearance; [""] if no setting is given."""
    return list(dict.fromkeys(arm.settings[setting] for arm in arms)) if setting else [""]


def _looks(
    arms: Sequence[Arm], untold: AbstractSet[str | None], tuned: str | None, y: str
) -> dict[str, tuple[str, str, Any]]:
    """For each arm's label: the name of its line, a colour and a dash, the same in all panels.

    Names have the settings in which arms differ, but for the `untold`; arms of one name have one look. A line is not
    solid if another one would lie beneath it all along: both are seen.
    """
    keys = {key for arm in arms for key in arm.settings}
    told = {key for key in keys if len({arm.settings.get(key) for arm in arms}) > 1} - untold
    names = [
        ",".join([arm.name, *(f"{k}={shortest(v)}" for k, v in arm.settings.items() if k in told)]) for arm in arms
    ]
    shades, curves = [color(arm.algorithm) for arm in arms], [_mean(arm, y) for arm in arms]
    panels = [tuple(arm.settings.get(key) for key in untold if key and key != tuned) for arm in arms]
    beneath = {
        names[at] for at, before in combinations(reversed(range(len(arms))), 2)
        if panels[at] == panels[before] and shades[at] != shades[before] and _coincide(curves[at], curves[before])
    }  # fmt: skip
    dashes_of: dict[str, dict[str, Any]] = {shade: {} for shade in shades}
    for name, shade in zip(names, shades, strict=True):
        if name not in (dashes := dashes_of[shade]):
            free = [dash for dash in DASHES if dash not in dashes.values()] or list(DASHES)
            dashes[name] = free[1] if name in beneath and free[0] == "-" else free[0]
    found = zip(arms, names, shades, strict=True)
    return {arm.label: (name, shade, dashes_of[shade][name]) for arm, name, shade in found}


def _mean(arm: Arm, y: str) -> np.ndarray:
    """(evaluations,): the mean of a column over seeds that did not diverge; empty if all did."""
    sound = [[row[y] for row in run.history()] for run in arm.runs if "diverged" not in run.summary()]
    return np.mean(sound, axis=0) if sound else np.array([])


def _coincide(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two lines cannot be told apart on paper: they differ by less than a twentieth of their range."""
    return one.shape == other.shape and one.size > 0 and bool((abs(one - other) < 0.05 * np.ptp(one)).all())


def _draw(
    axes: Axes, arms: Sequence[Arm], cost: str, y: str, looks: Mapping[str, tuple[str, str, Any]], center: str
) -> None:
    """Draw one panel of `curves`. `looks`: by the labels of arms."""
    for arm in arms:
        label, shade, dashes = looks[arm.label]
        histories = [run.history() for run in arm.runs if "diverged" not in run.summary()]
        if not histories:
            continue
        density = arm.runs[0].config()["algorithm"].get("compressor", {}).get("density", 1.0)
        across = np.mean([[_cost(row, cost, density) for row in history] for history in histories], axis=0)
        values = np.array([[row[y] for row in history] for history in histories])
        lost = len(arm.runs) - len(histories)
        label = f"{label} ({lost} of {len(arm.runs)} diverged)" if lost else label
        axes.plot(across, CENTERS[center](values, axis=0), linestyle=dashes, color=shade, label=label)
        axes.fill_between(across, values.min(axis=0), values.max(axis=0), color=shade, alpha=0.15, linewidth=0)


def _fit(panels: Sequence[Axes], y_is_limited: bool, x_is_limited: bool) -> None:
    """Fit the axis without limits to what those of the other leave visible in a row of panels, which share y; mark
    evaluations where few are visible."""
    heights = list[float]()
    for axes in panels:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        lines = [np.asarray(line.get_xydata()) for line in axes.get_lines()]
        inside = [p[(left <= p[:, 0]) & (p[:, 0] <= right) & (low <= p[:, 1]) & (p[:, 1] <= high)] for p in lines]
        if all(len(points) <= FEW for points in inside):
            for line in axes.get_lines():
                line.set(marker="o", markersize=2)
        seen = np.concatenate([*inside, np.empty((0, 2))])
        heights += seen[:, 1].tolist()
        if y_is_limited and not x_is_limited and len(seen):
            axes.set_xlim(*_around(seen[:, 0], axes.get_xscale() == "log"))
    if x_is_limited and not y_is_limited and heights:
        panels[0].set_ylim(*_around(np.array(heights), panels[0].get_yscale() == "log"))


def _broaden(axes: Axes) -> None:
    """Where a line lies on others of its colour all along, so that no dash tells them apart, make those broad and
    pale."""
    left, right, low, high = *axes.get_xlim(), *axes.get_ylim()
    lines, places = axes.get_lines(), list[np.ndarray]()
    for line in lines:
        points = np.asarray(line.get_xydata())
        hidden = np.any((points < (left, low)) | (points > (right, high)), axis=1)
        places.append((axes.transScale + axes.transLimits).transform(points))
        places[-1][hidden] = np.nan
    for at, line in enumerate(lines):
        above = [
            top for top in range(at + 1, len(lines))
            if lines[top].get_color() == line.get_color() and _lies_on(places[top], places[at])
        ]  # fmt: skip
        if above:
            line.set(linewidth=line.get_linewidth() + 2 * len(above), alpha=0.4)


def _lies_on(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether (points, 2) of two lines, in units of the axes, are nowhere a hundredth apart; NaN where not visible."""
    apart = abs(one - other) if one.shape == other.shape else np.array([np.inf])
    return not np.isnan(apart).all() and bool(np.nanmax(apart) < 0.01)


def _around(values: np.ndarray, is_log: bool) -> tuple[float, float]:
    """The least and the greatest value, with some room."""
    least, most = float(values.min()), float(values.max())
    room = (most / least) ** 0.05 if is_log else 0.05 * (most - least)
    return (least / room, most * room) if is_log else (least - room, most + room)


def _mark(axes: Axes, arms: Sequence[Arm], cost: str, y: str) -> None:
    """Mark the target, and against rounds the last ones before learning rates decay."""
    config, mark = (
        arms[0].runs[0].config(),
        {"color": "#777777", "linewidth": 0.7, "linestyle": (0, (1, 1.5)), "zorder": 1},
    )
    target = arms[0].runs[0].aim or config.get("target")
    if target and target["metric"] == y:
        low, high = axes.get_ylim()
        axes.axhline(target["value"], **mark)
        axes.set_ylim(low, high)
    milestones = (config.get("schedule") or {}).get("milestones", [])
    for milestone in milestones if cost == "round" else []:
        before = [row["round"] for row in arms[0].runs[0].history() if row["epoch"] < milestone]
        if before:
            axes.axvline(before[-1], **mark)


def _line(axes: Axes, arms: Sequence[Arm], x: str, y: str, dashes: Any) -> None:
    arms = sorted(arms, key=lambda arm: float(arm.settings[x]))
    shade, at = color(arms[0].algorithm), np.array([float(arm.settings[x]) for arm in arms])
    summaries = [[run.summary() for run in arm.runs] for arm in arms]
    final = [[summary[y] for summary in runs if "diverged" not in summary] or [np.nan] for runs in summaries]
    mean = np.array([np.mean(values) for values in final])
    axes.plot(at, mean, linestyle=dashes, color=shade, marker="o", markersize=3, label=arms[0].name)
    axes.fill_between(at, [min(v) for v in final], [max(v) for v in final], color=shade, alpha=0.15, linewidth=0)
    crossed = [place for place, runs in zip(at, summaries, strict=True) if any("diverged" in run for run in runs)]
    axes.plot(crossed, [0.03] * len(crossed), "x", color=shade, transform=axes.get_xaxis_transform())


def _name_lines(drawing: Figure, grid: np.ndarray) -> None:
    """Label lines at their ends in the last column of panels; if labels do not fit, draw one legend instead."""
    named = dict[str, Line2D]()
    for line in (line for axes in grid.flat for line in _named(axes)):
        other = named.setdefault(name := str(line.get_label()), line)
        named[name] = min(line, other, key=Line2D.get_linewidth)  # not broad, unless it is everywhere
    drawing.draw_without_rendering()  # fixes the positions of panels and lines
    places = [_places(axes) if len(_named(axes)) == len(named) else None for axes in grid[:, -1]]
    if None in places:
        drawing.legend(named.values(), named.keys(), loc="outside right center")
        return
    for axes, found in zip(grid[:, -1], places, strict=True):
        for line, shift in zip(_named(axes), found or (), strict=True):
            axes.annotate(
                str(line.get_label()), _end(line), (4, shift), textcoords="offset points", va="center",
                color=line.get_color(), annotation_clip=False,
            )  # fmt: skip


def _named(axes: Axes) -> list[Line2D]:
    return [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]


def _end(line: Line2D) -> tuple[float, float]:
    x, y = np.asarray(line.get_xydata())[-1]
    return float(x), float(y)


def _places(axes: Axes, height: float = 9.0) -> list[float] | None:
    """How far each label must shift up or down from its line's end to avoid overlap, in points.

    None if a line does not end at the right edge, or if a label would shift by more than `height`.
    """
    ends = np.array([axes.transData.transform(_end(line)) for line in _named(axes)])
    box = axes.get_window_extent()
    at_edge = abs(ends[:, 0] - box.x1) < 0.1 * box.width  # NaN counts as not at the right edge
    if not (at_edge & (box.y0 <= ends[:, 1]) & (ends[:, 1] <= box.y1)).all():
        return None
    at = ends[:, 1] * 72 / axes.figure.dpi
    order = np.argsort(at)
    placed = at[order].copy()
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + height)
    placed -= (placed - at[order]).mean()  # the mean shift is zero: some labels up, others down
    shifts = np.empty_like(at)
    shifts[order] = placed - at[order]
    return shifts.tolist() if (np.abs(shifts) <= height).all() else None


def _cost(row: Row, name: str, density: float) -> float:
    """The cost `name` at an evaluation. Costs that the history has no column for are derived."""
    derived = {
        "dense_passes": lambda: row["data_passes"] * density,
        "measured_ms": lambda: 1e3 * row["measured_s"],
    }
    return derived[name]() if name in derived else row[name]


def save(drawing: Figure, folder: Path, source: str) -> None:
    """Write figure.png and figure.pdf, byte-identical for the same data. The PNG's metadata holds `source`."""
    with matplotlib.style.context(LOOK):
        for suffix, metadata in (
            ("png", {"Software": None, "Source": source}),
            ("pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        ):
            content = BytesIO()
            drawing.savefig(content, format=suffix, metadata=metadata)
            write_whole(folder / f"figure.{suffix}", content.getvalue())


def digest(experiment: Experiment) -> str:
    """A hash of everything that a figure depends on: its description, and the data of the runs that figures draw.
    Columns without a value are left out, so that a new one changes nothing."""

    def drawn(rows: Sequence[Row]) -> list[Row]:
        there = [{name: value for name, value in row.items() if value is not None} for row in rows]
        return [{name: value for name, value in row.items() if name not in UNDRAWN} for row in there]

    shown = [
        [arm.label, [[drawn(run.history()), run.summary().get("diverged")] for run in arm.runs]]
        for arm in experiment.complete
    ]
    return hashlib.sha256(json.dumps([experiment.spec["figure"], shown]).encode()).hexdigest()
