"""Draws who wins: the quickest recipe over bandwidth and number of workers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from bench.findings.look import GREYS, color, engineering
from bench.findings.paper import LOOK, save
from bench.findings.pay import Network, Step, quickest
from bench.findings.prices import Prices

BANDWIDTHS = np.geomspace(1e6, 4e11, 113)
WORKERS = sorted({round(size) for size in np.geomspace(2, 256, 43)})


def winners(prices: Prices, network: Network, skips: Mapping[str, float]) -> list[list[tuple[Step, Step]]]:
    """The quickest step and the quickest dense one, by workers and bandwidth."""

    def at(workers: int, bandwidth_bps: float) -> tuple[Step, Step]:
        here = replace(network, workers=workers, bandwidth_bps=bandwidth_bps)
        best = quickest(prices.dense(here))
        return quickest([best, *prices.steps(here, skips)]), best

    return [[at(workers, float(bps)) for bps in BANDWIDTHS] for workers in WORKERS]


def draw_winners(prices: Prices, network: Network, skips: Mapping[str, float], folder: Path) -> list[Path]:
    """Write figure.png and figure.pdf: who wins, and by which factor."""
    found = winners(prices, network, skips)
    names = list(dict.fromkeys(step.name for line in found for step, _ in line))
    place = {name: at for at, name in enumerate(names)}
    won = np.array([[place[step.name] for step, _ in line] for line in found])
    factor = np.array([[best.total_s / step.total_s for step, best in line] for line in found])
    shades = [GREYS.get(name) or color(name) for name in names]
    with matplotlib.style.context(LOOK):
        drawing = Figure(figsize=(6.2, 3.6), layout="constrained")
        axes = drawing.subplots()
        axes.pcolormesh(BANDWIDTHS, WORKERS, won, cmap=ListedColormap(shades), vmin=-0.5, vmax=len(names) - 0.5,
                        shading="nearest", rasterized=True)  # fmt: skip
        if factor.max() > 1.1:
            levels = [level for level in (1.1, 1.5, 2, 5, 10, 20, 50, 100) if level < factor.max()]
            lines = axes.contour(BANDWIDTHS, WORKERS, factor, levels=levels, colors="black", linewidths=0.5)
            axes.clabel(lines, fmt=lambda level: f"{level:g}×", fontsize=6)
        axes.plot(network.bandwidth_bps, network.workers, "o", color="white", markeredgecolor="black", markersize=5)
        cluster = f"{network.step_s * 1e3:.4g} ms of computation, overlap {network.overlap:g}, "
        cluster += f"{network.latency_s * 1e6:g} µs a message"
        axes.set(xscale="log", yscale="log", xlabel="bandwidth of a machine, bit/s", ylabel="workers M",
                 title=f"quickest step; {cluster}\nlines: gain over the best dense all-reduce")  # fmt: skip
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: engineering(value)))
        axes.set_yticks([2, 4, 8, 16, 32, 64, 128, 256], ["2", "4", "8", "16", "32", "64", "128", "256"])
        axes.minorticks_off()
        axes.grid(visible=False)
        drawing.legend(
            [Patch(color=shade) for shade in shades],
            [f"{name} all-reduce" if name in GREYS else name for name in names],
            loc="outside right center",
        )
        save(drawing, folder, f"{prices.dim} parameters, {network}")
    return [folder / "figure.png", folder / "figure.pdf"]
