"""Figures of what it costs to learn: a metric against rounds, bits, passes or seconds."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.errors import InputError
from bench.findings.experiments import Arm, values_of
from bench.findings.look import DASHES, TITLES, color, shortest
from bench.findings.marks import mark, name_lines
from bench.findings.scales import scale
from bench.findings.tuning import Tuned
from bench.findings.variance import write_variances
from bench.runs.columns import Row

CENTERS = {"mean": np.mean, "median": np.median}
FEW = 16
"""Up to so many evaluations are marked on a line."""


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
    down, across = values_of(arms, rows), list(groups) if groups else values_of(arms, columns)
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
            mark(axes, arms, line_cost or place_cost, metric)
        panels[0].set_ylabel(TITLES[metric])
    if groups:
        for axes in grid[-1]:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25))
    else:
        name_lines(drawing, grid)
    return drawing


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


def _cost(row: Row, name: str, density: float) -> float:
    """The cost `name` at an evaluation. Costs that the history has no column for are derived."""
    derived = {
        "dense_passes": lambda: row["data_passes"] * density,
        "measured_ms": lambda: 1e3 * row["measured_s"],
    }
    return derived[name]() if name in derived else row[name]


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


def _around(values: np.ndarray, is_log: bool) -> tuple[float, float]:
    """The least and the greatest value, with some room."""
    least, most = float(values.min()), float(values.max())
    room = (most / least) ** 0.05 if is_log else 0.05 * (most - least)
    return (least / room, most * room) if is_log else (least - room, most + room)


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
