"""Figures of what a setting does: final values against it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.findings.experiments import Arm, values_of
from bench.findings.look import DASHES, TITLES, color
from bench.findings.marks import mark, name_lines
from bench.findings.scales import scale
from bench.findings.tuning import Tuned


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
    values, names = values_of(arms, panels), list(dict.fromkeys(arm.name for arm in arms))
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
        mark(axes, shown, x, metric)
    name_lines(drawing, grid)
    return drawing


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
