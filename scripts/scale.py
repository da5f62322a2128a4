"""Measures what a simulated round costs with 1 to 1,000 workers, and holds foretold memory against the real one.

    python scripts/scale.py            # writes results/scale: table and figure, which scripts/figures.py draws anew
    python scripts/scale.py --workers 1 10

It takes some minutes. Rounds of FC-MNIST at batch 10 a worker, through the Trainer, on one thread; each case in its own
process. Times are medians of five rounds after three, in which all workers of lazy rules upload. Memory is what the
process takes at its peak beyond what it took before the fit.
"""

import argparse
import csv
import json
import statistics
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.style
import torch
from lightning import Callback, Trainer
from matplotlib.figure import Figure
from tqdm.auto import tqdm

import bench
from bench.collectives.simulated import SimulatedWorld
from bench.findings.look import color
from bench.findings.paper import LOOK, save
from bench.findings.scales import in_full
from bench.findings.table import Column, Table
from bench.gradients.layout import Layout
from bench.round.memory import foretold_bytes
from bench.runs.module import Classifier
from bench.suite.datamodules.mnist import MNIST
from bench.suite.models.mlp import mlp
from bench.suite.scripts.bare import fit, forked, keep_quiet
from bench.suite.scripts.cli import guarded

RECIPES = ("sgd", "sparse", "signsgd_mv", "sasg")
WORKERS = (1, 3, 10, 30, 100, 300, 1000)
FIRST, TIMED = 3, 5


class Rounds(Callback):
    """Records when rounds end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ends.append(time.perf_counter())


def memory(name: str) -> int:
    """A line of this process's status, in bytes: VmRSS is what it takes now, VmHWM what it took at most."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(int(line[1]) * 1024 for line in lines if line[0] == f"{name}:")


def measure(rank: int, recipe: str, workers: int, file: Path) -> None:
    """One case, in this process."""
    torch.manual_seed(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, rounds = memory("VmRSS"), Rounds()
    module = Classifier(mlp(), partial(torch.optim.SGD, lr=0.05))
    strategy = bench.CompressedStrategy(recipe, workers=workers)
    fit(strategy, module, MNIST(batch_size=10), FIRST + TIMED, [rounds])
    ends = rounds.ends[FIRST - 1 :]
    ms = 1e3 * statistics.median(later - sooner for sooner, later in pairwise(ends))
    file.write_text(json.dumps({"ms": ms, "peak": memory("VmHWM") - before}), "utf-8")


def scale(out: Path, counts: list[int]) -> Table:
    """Measure all cases; write the table and the figure."""
    keep_quiet()
    layout, rows = Layout(mlp().named_parameters()), []
    cases = [(recipe, workers) for recipe in RECIPES for workers in counts]
    with tempfile.TemporaryDirectory() as name:
        for recipe, workers in tqdm(cases, unit="case", disable=None):
            forked(1, measure, recipe, workers, file := Path(name) / "measured.json")
            foretold = foretold_bytes(bench.load_recipe(recipe), SimulatedWorld(workers), layout)
            measured = json.loads(file.read_text("utf-8"))
            rows.append(
                {"recipe": recipe, "workers": workers, "ms": measured["ms"], "ms_a_worker": measured["ms"] / workers,
                 "peak": measured["peak"] / 1e6, "foretold": sum(foretold.values()) / 1e6}
            )  # fmt: skip
    columns = [
        Column("recipe", "recipe", "name"), Column("workers", "workers", "count"),
        Column("ms", "ms a round", "seconds"), Column("ms_a_worker", "ms a worker", "number"),
        Column("peak", "peak memory, MB", "count"), Column("foretold", "foretold at least, MB", "count"),
    ]  # fmt: skip
    caption = "A simulated round of FC-MNIST at batch 10 a worker, one thread; memory beyond that before the fit."
    table = Table(caption, columns, rows)
    table.write(out)
    redraw(out)
    return table


def redraw(folder: Path) -> None:
    """Draw the figure of a folder's table.csv."""
    with (folder / "table.csv").open(encoding="utf-8", newline="") as lines:
        rows = [{k: v if k == "recipe" else float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    save(picture(rows), folder, "table.csv")


def picture(rows: list[dict[str, Any]]) -> Figure:
    """Time and memory over the number of workers."""
    with matplotlib.style.context(LOOK):
        drawing = Figure(figsize=(6.6, 2.9), layout="constrained")
        times, memories = drawing.subplots(1, 2)
        for recipe, dashes in zip(RECIPES, ("-", "-", "--", "--"), strict=True):  # memory of some is nearly the same
            own = [row for row in rows if row["recipe"] == recipe]
            workers = [row["workers"] for row in own]
            look: dict[str, Any] = {"color": color(recipe), "markersize": 3, "linewidth": 1}
            times.plot(workers, [row["ms"] for row in own], f"o{dashes}", label=recipe, **look)
            memories.plot(workers, [row["peak"] / 1e3 for row in own], f"o{dashes}", label=recipe, **look)
            if any(foretold := [row["foretold"] / 1e3 for row in own]):
                memories.plot(workers, foretold, ":", **look)
        times.set(xscale="log", yscale="log", xlabel="workers M", ylabel="ms a round")
        memories.set(xscale="log", yscale="log", xlabel="workers M", ylabel="GB; dotted: foretold at least")
        for axes in (times, memories):
            in_full(axes)
        memories.legend()
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--out", type=Path, default=Path("results") / "scale")
    args = parser.parse_args()
    guarded(lambda: print(scale(args.out, args.workers).markdown()))


if __name__ == "__main__":
    main()
