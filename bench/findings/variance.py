"""What unbiased compressors cost: by which factor they raised the square norm of gradients over a run, and the density
that they were asked for (Wangni et al., NeurIPS 2018, write both beside their curves).

The paper's var is Σ‖Q(g)‖²/Σ‖g‖². As Q(g) − g is at right angles to g in the mean, it has the mean of
1 + Σ‖Q(g) − g‖²/Σ‖g‖². The rounds before evaluations measure it, each weighted by the square of the workers' mean norm:
exact as long as their norms differ by the same factors in all of these rounds, and without error feedback.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from bench.findings.experiments import Arm
from bench.runs.columns import Row


def variance(rows: Sequence[Row]) -> float:
    """var over the rows of a history; NaN if they do not tell."""
    found = [(row["compression_error"], row["gradient_norm"]) for row in rows]
    if not found or any(None in each for each in found):
        return float("nan")
    errors, norms = np.array(found).T
    return 1 + float(np.average(errors, weights=norms**2))


def write_variances(axes: Axes, arms: Sequence[Arm], shades: Sequence[str]) -> None:
    """Write var, its mean over seeds, and the density ρ into a panel's upper right corner, for arms that compress, in
    the colours of their lines."""
    told = list[tuple[str, str]]()
    for arm, shade in zip(arms, shades, strict=True):
        var = np.mean([variance(run.history()) for run in arm.runs])
        density = arm.runs[0].config()["algorithm"].get("compressor", {}).get("density")
        if var > 1:
            told.append((f"var {var:.3g}" + (f", ρ {density:g}" if density else ""), shade))
    for line, (text, shade) in enumerate(told):
        axes.text(
            0.98, 0.97 - 0.09 * line, text, color=shade, transform=axes.transAxes, ha="right", va="top",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
