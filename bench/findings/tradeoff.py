"""What every arm ends with against what it has sent, and the front: what nothing else beats in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath

from bench.errors import InputError
from bench.findings.experiments import Arm
from bench.findings.look import TITLES, color
from bench.findings.scales import scale
from bench.runs.columns import FALLING

SIZE, ROW = 6.5, 7.0  # of names, and from one to the next, in points
RADIUS = 2.5  # of what a point keeps free around it


@dataclass(frozen=True, eq=False)
class End:
    """Where an arm ends: means over seeds, and the standard deviation of what is plotted upwards.

    Attributes:
        arm: the arm.
        x, y: its mean cost and its mean value after the last round.
        spread: of the values; 0 for one seed.
    """

    arm: Arm
    x: float
    y: float
    spread: float


def front(ends: Sequence[End], falls: bool) -> list[End]:
    """Those that no other end beats in one of cost and value without losing in the other, by rising cost.

    Args:
        ends: of the arms.
        falls: whether a lower value is better.
    """
    found = list[End]()
    for end in sorted(ends, key=lambda end: (end.x, end.y if falls else -end.y)):
        if not found or (end.y < found[-1].y if falls else end.y > found[-1].y):
            found.append(end)
    return found


def tradeoff(
    arms: Sequence[Arm],
    x: str = "total_bits",
    y: str = "test_accuracy",
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw a point for each arm, with the standard deviation over seeds, and a line through the front. Arms that cannot
    be drawn are named below.

    Args:
        arms: the arms to draw, but for those of which a run diverged.
        x: a cost.
        y: a column of the history.
        limits: of the axes, by column.

    Raises:
        InputError: no arm ended.
    """
    found = [(arm.name, _end(arm, x, y)) for arm in arms]
    ends = [end for _, end in found if end is not None]
    if not ends:
        raise InputError(f"figure.y: {y}; every arm diverged, one that ended is needed")
    drawing = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = drawing.subplots()
    best = front(ends, y in FALLING)
    axes.plot([end.x for end in best], [end.y for end in best], color="#999999", linewidth=0.8, zorder=1)
    for end in ends:
        shade = color(end.arm.algorithm)
        axes.errorbar(end.x, end.y, yerr=end.spread, fmt="o", markersize=3, color=shade, linewidth=0.7)
    axes.set(xlabel=f"{TITLES[x]} after the last round", ylabel=TITLES[y])
    axes.set_xscale("log")
    for limit, shown in ((x, axes.set_xlim), (y, axes.set_ylim)):
        if limits and limit in limits:
            shown(*limits[limit])
    scale(axes, "x", x, ())
    scale(axes, "y", y, ())
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    inside = [end for end in ends if left <= end.x <= right and low <= end.y <= high]
    unit = (lambda value: f"{100 * value:.4g} %") if y.endswith("accuracy") else (lambda value: f"{value:.4g}")
    beyond = [f"{end.arm.name} ({unit(end.y)})" for end in ends if end not in inside]
    lost = [name for name, end in found if end is None]
    for told, names in (("Beyond the axes", beyond), ("Diverged", lost)):
        if names:
            axes.set_xlabel(axes.get_xlabel() + "\n" + fill(f"{told}: {', '.join(names)}", 100))
    drawing.draw_without_rendering()  # fixes where points are
    drawing.set_layout_engine("none")  # names move nothing
    _name(axes, inside, best)
    return drawing


def _end(arm: Arm, x: str, y: str) -> End | None:
    summaries = [run.summary() for run in arm.runs]
    if any("diverged" in summary for summary in summaries):
        return None
    costs, values = (np.array([summary[name] for summary in summaries], float) for name in (x, y))
    return End(arm, costs.mean(), values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0)


def _name(axes: Axes, ends: Sequence[End], best: Sequence[End]) -> None:
    """Write the arms' names beside their points, each as near as it can be without covering another name or a point;
    a line leads to those that are farther away."""
    unit = axes.figure.dpi / 72
    start = np.array([axes.bbox.x0, axes.bbox.y0]) / unit
    stop = np.array([axes.figure.bbox.x1, axes.figure.bbox.y1]) / unit
    points = np.array([axes.transData.transform((end.x, end.y)) for end in ends]).reshape(-1, 2) / unit
    taken = [np.concatenate([points - RADIUS, points + RADIUS], axis=1)]  # left, bottom, right, top
    for at in np.argsort(-points[:, 1]):
        end, point = ends[at], points[at]
        weight = "bold" if end in best else "normal"
        width = TextPath((0, 0), end.arm.name, SIZE, prop=FontProperties(weight=weight)).get_extents().width
        starts = [side for gap in (4, 16, 32, 64) for side in (gap, -gap - width)]
        shifts = np.array(list(product(starts, np.arange(-60, 61) * ROW / 4)))
        low = point + shifts - np.array([0, ROW / 2])
        boxes = np.concatenate([low, low + np.array([width + 3, ROW])], axis=1)
        away = np.hypot(np.maximum(shifts[:, 0], -shifts[:, 0] - width) - 4, shifts[:, 1]) + 4 * (shifts[:, 0] < 0)
        covered = _overlaps(boxes, np.concatenate(taken)).sum(axis=1)
        covered += ((boxes[:, :2] < start) | (boxes[:, 2:] > stop)).any(axis=1)
        chosen = np.lexsort((away, covered))[0]
        taken.append(boxes[[chosen]])
        leads = {"arrowstyle": "-", "linewidth": 0.4, "color": "#999999", "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            end.arm.name, (end.x, end.y), tuple(shifts[chosen]), textcoords="offset points", va="center",
            fontsize=SIZE, color=color(end.arm.algorithm), weight=weight, annotation_clip=False,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            arrowprops=leads | {"relpos": (float(shifts[chosen, 0] < 0), 0.5)} if away[chosen] > ROW else None,
        )  # fmt: skip


def _overlaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(some, others): whether two boxes overlap. Boxes are left, bottom, right, top."""
    starts, ends = (
        np.maximum(some[:, None, :2], others[None, :, :2]),
        np.minimum(some[:, None, 2:], others[None, :, 2:]),
    )
    return np.all(starts < ends, axis=2)  # pyright: ignore[reportReturnType]
