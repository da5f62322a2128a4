"""What every arm ends with against what it has sent, and the front: what nothing else beats in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bench.errors import InputError
from bench.findings.experiments import Arm
from bench.findings.look import TITLES, color
from bench.findings.scales import scale
from bench.runs.columns import FALLING

ROW = 7.0  # points between the labels of neighbours


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
    """Draw a point for each arm, with the standard deviation over seeds, and a line through the front.

    Args:
        arms: the arms to draw; those of which a run diverged are left out.
        x: a cost.
        y: a column of the history.
        limits: of the axes, by column. Arms beyond them are named below the figure.

    Raises:
        InputError: no arm ended.
    """
    ends = [end for arm in arms if (end := _end(arm, x, y)) is not None]
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
    drawing.draw_without_rendering()  # fixes where points are
    _name(axes, ends, best)
    return drawing


def _end(arm: Arm, x: str, y: str) -> End | None:
    summaries = [run.summary() for run in arm.runs]
    if any("diverged" in summary for summary in summaries):
        return None
    costs, values = (np.array([summary[name] for summary in summaries], float) for name in (x, y))
    return End(arm, costs.mean(), values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0)


def _name(axes: Axes, ends: Sequence[End], best: Sequence[End]) -> None:
    """Write the arms' names beside their points, each as far up or down as it must be to overlap no other's; names of
    arms that lie outside below the axes."""
    box, unit = axes.get_window_extent(), axes.figure.dpi / 72
    places = {end: axes.transData.transform((end.x, end.y)) for end in ends}
    outside = [end for end, at in places.items() if not box.contains(*at)]
    taken = list[tuple[float, float, float]]()  # left, right, height of names, in points
    for end in sorted((end for end in ends if end not in outside), key=lambda end: -places[end][1]):
        across, up = places[end] / unit
        width = 4.2 * len(end.arm.name)
        left = across + 4
        height = next(
            height
            for step in range(200)
            for height in (up - step * ROW / 4, up + step * ROW / 4)
            if all(right < left or left + width < start or abs(height - other) >= ROW for start, right, other in taken)
        )
        taken.append((left, left + width, height))
        axes.annotate(
            end.arm.name, (end.x, end.y), (4, height - up), textcoords="offset points", va="center", fontsize=6.5,
            color=color(end.arm.algorithm), weight="bold" if end in best else "normal", annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
    if outside:
        told = ", ".join(f"{end.arm.name} ({end.y:.3g})" for end in outside)
        axes.text(0, -0.2, f"beyond the axes: {told}", transform=axes.transAxes, fontsize=6, wrap=True)
