"""What figures tell beside their lines: names at the ends of lines, the target, and when learning rates decay."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.findings.experiments import Arm


def named_lines(axes: Axes) -> list[Line2D]:
    """The lines of a panel that have a name."""
    return [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]


def mark(axes: Axes, arms: Sequence[Arm], cost: str, y: str) -> None:
    """Mark the target, and against rounds the last ones before learning rates decay."""
    run, grey = arms[0].runs[0], {"color": "#777777", "linewidth": 0.7, "linestyle": (0, (1, 1.5)), "zorder": 1}
    config = run.config()
    target = run.aim or config.get("target")
    if target and target["metric"] == y:
        low, high = axes.get_ylim()
        axes.axhline(target["value"], **grey)
        axes.set_ylim(low, high)
    milestones = (config.get("schedule") or {}).get("milestones", [])
    for milestone in milestones if cost == "round" else []:
        before = [row["round"] for row in run.history() if row["epoch"] < milestone]
        if before:
            axes.axvline(before[-1], **grey)


def name_lines(drawing: Figure, grid: np.ndarray) -> None:
    """Label lines at their ends in the last column of panels; if labels do not fit, draw one legend instead."""
    named = dict[str, Line2D]()
    for line in (line for axes in grid.flat for line in named_lines(axes)):
        other = named.setdefault(name := str(line.get_label()), line)
        named[name] = min(line, other, key=Line2D.get_linewidth)  # not broad, unless it is everywhere
    drawing.draw_without_rendering()  # fixes the positions of panels and lines
    places = [_places(axes) if len(named_lines(axes)) == len(named) else None for axes in grid[:, -1]]
    if None in places:
        drawing.legend(named.values(), named.keys(), loc="outside right center")
        return
    for axes, found in zip(grid[:, -1], places, strict=True):
        for line, shift in zip(named_lines(axes), found or (), strict=True):
            axes.annotate(
                str(line.get_label()), _end(line), (4, shift), textcoords="offset points", va="center",
                color=line.get_color(), annotation_clip=False,
            )  # fmt: skip


def _end(line: Line2D) -> tuple[float, float]:
    x, y = np.asarray(line.get_xydata())[-1]
    return float(x), float(y)


def _places(axes: Axes, height: float = 9.0) -> list[float] | None:
    """How far each label must shift up or down from its line's end to avoid overlap, in points.

    None if a line does not end at the right edge, or if a label would shift by more than `height`.
    """
    ends = np.array([axes.transData.transform(_end(line)) for line in named_lines(axes)])
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
