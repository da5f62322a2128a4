"""How the axes of figures are scaled, and their values written."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bench.findings.look import LOGARITHMIC
from bench.runs.columns import COSTS


def scale(axes: Axes, side: Literal["x", "y"], column: str, log: Sequence[str]) -> None:
    """Make an axis logarithmic where its column asks for it, and write its values with their unit."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    unit = "bit" if "bits" in column and column != "bits_over_bound" else ""
    if column in LOGARITHMIC or column in log:
        (axes.set_xscale if side == "x" else axes.set_yscale)("log", nonpositive="mask")
        if column in log:  # spans few decades
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 6)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        elif unit:
            axis.set_major_locator(LogLocator(numticks=4))
            axis.set_major_formatter(EngFormatter(unit, sep=""))
        axis.set_minor_formatter(NullFormatter())  # labels between powers of ten would overlap
    elif column.endswith("accuracy"):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    elif column in COSTS or (side == "x" and not column.endswith("passes")):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(EngFormatter(unit, sep=""))


def in_full(axes: Axes) -> None:
    """Write the powers of ten on logarithmic axes as numbers: 1,000."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.15g}"))
