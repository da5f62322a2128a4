"""Runs the SASG paper's experiments with ResNet18 (Table II, Figures 4 and 5) on one GPU, also on a borrowed one.

    python scripts/gpu.py                                  # all cells; if started again, it resumes
    python scripts/gpu.py --minutes 9 --out results.tgz    # those that will be over in nine minutes
    python scripts/gpu.py --device cpu --trial 10 experiment=quickstart results_dir=/tmp/small   # tried without a GPU

First a check: the device, the versions, a small run. Then a trial of at most a minute on the first experiment's
network: what a round costs under every engine and precision, against a step of plain PyTorch on the joint batch; what
counts is at most 1.5 for `sgd`, 3 for `sasg`. Then the cells, as the experiments' files describe them, as many at once
as keep the device busy and fit its memory: of each experiment `sgd` and `sasg` with its first seed, then that seed's
others, then other seeds. They compute in single precision, unless ++trainer.precision= says another, which becomes part
of the run. With --minutes, a cell begins only if it is predicted to be over before the deadline, at which those that
still run are ended. Overrides apply to every cell; experiment= names another experiment. --out packs what is worth
keeping of every cell: config, history, summary, no checkpoint. Without a network, gpu.sh cannot install: start gpu.py
by a Python that has what pyproject.toml asks for.

Nothing here was measured on a GPU yet. What only a GPU can show: whether the trial's shares of busy time and its
predictions hold; whether engines agree there under TF32; whether channels last, which networks and images have, gains;
whether CUDA graphs over the loop of workers would.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse
import gc
import heapq
import itertools
import logging
import os
import signal
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from bench.errors import InputError
from bench.kernels.memory import free_bytes
from bench.runs.grid import Cell, cells
from bench.runs.overrides import composable
from bench.runs.results import versions
from bench.suite.scripts.cli import guarded, one_line
from bench.suite.scripts.launchers import run_alone
from bench.suite.scripts.matrix import outcome, run_cells
from bench.suite.scripts.rounds import HARMLESS
from bench.suite.scripts.trial import Cost, tried

EXPERIMENTS = ("sasg_cifar10", "sasg_cifar100", "sasg_density_resnet18", "sasg_heterogeneous_resnet18")
SOONEST = ("sgd", "sasg")
WAYS = [*itertools.product(("joint", "vmap", "loop"), ("32-true", "bf16-mixed"))]
MARGIN = 1.15  # by which a cell may take longer than predicted
ENDING_S = 20.0  # to end the cells that still run, and to pack


def check(device: str) -> None:
    """Say what is here, and train for a moment.

    Raises:
        InputError: there is no such device, or the run failed.
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device: cuda; there is none here, cpu is allowed")
        print(f"{torch.cuda.get_device_name()}, {free_bytes(torch.device(device)) / 2**30:.0f} GiB free", end=", ")
    print(f"{os.cpu_count()} cores, {', '.join(f'{name} {version}' for name, version in versions().items())}")
    with tempfile.TemporaryDirectory() as folder:
        tiny = ["algorithm=sasg", "data=digits", "workers=4", "trainer.max_epochs=1", "trainer.val_check_interval=10"]
        ended = run_alone([*tiny, f"trainer.accelerator={device}", "logger=csv", f"results_dir={folder}"])
    if ended.reason:
        raise InputError(f"the first small run: {ended.reason}")


def all_cells(overrides: Sequence[str]) -> list[Cell]:
    """The cells of the experiments that are not complete, the soonest first."""
    named = [override for override in overrides if override.startswith("experiment=")]
    rest, found = [override for override in overrides if override not in named], []
    for experiment in named or [f"experiment={name}" for name in EXPERIMENTS]:
        _, grid = cells([experiment, *rest])
        seed = grid[0].folder.path.name
        grid.sort(key=lambda cell: (cell.folder.path.name != seed, label(cell) not in SOONEST))
        found += [cell for cell in grid if not cell.folder.is_complete]
    return found


def label(cell: Cell) -> str:
    return cell.folder.path.parent.name


def try_ways(soonest: Sequence[Cell], seconds: float) -> None:
    """Print what a round costs under every engine and precision, as far as the time reaches."""
    until = time.monotonic() + seconds
    for (engine, precision), cell in itertools.product(WAYS, soonest):
        if time.monotonic() > until:
            return print("the time of the trial is over")
        told = f"{label(cell):<8}{engine:<7}{precision:<12}"
        try:
            print(told, said(cost_of(cell, f"engine={engine}", f"++trainer.precision={precision}")), flush=True)
        except Exception as error:  # an engine that cannot, or has not the memory: the others may
            print(told, one_line(error))


def cost_of(cell: Cell, *overrides: str) -> Cost:
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        cfg = compose("train", composable([*cell.overrides, *overrides]))
    try:
        return tried(cfg)
    finally:
        gc.collect()  # a Trainer and its parts know each other
        torch.cuda.empty_cache()


def said(cost: Cost) -> str:
    times = f"{1e3 * cost.round_s:8.1f} ms a round, {cost.round_s / cost.plain_s:5.2f} plain steps"
    return f"{times}, busy {cost.busy:4.0%}, {cost.num_bytes / 2**30:.1f} GiB; evaluation {cost.evaluation_s:.2f} s"


def num_at_once(costs: Sequence[Cost], device: str) -> int:
    """How many cells keep the device busy, have a core each to launch from, and fit its memory."""
    fit = [int(1 / max(cost.busy for cost in costs)), os.cpu_count() or 1]
    if most := max(cost.num_bytes for cost in costs):
        fit.append(int(0.9 * free_bytes(torch.device(device)) / most))
    return max(1, min(fit))


def in_time(seconds: Sequence[float], left_s: float, at_once: int) -> list[bool]:
    """Which cells will be over in time, if those that will be begin in order, each as soon as there is room.

    Args:
        seconds: that each takes.
        left_s: until the deadline.
        at_once: how many run at a time.
    """
    ends, flags = [0.0] * at_once, []
    for cost in seconds:
        flags.append(ends[0] + cost <= left_s)
        if flags[-1]:
            heapq.heapreplace(ends, ends[0] + cost)
    return flags


def pack(out: Path, done: Sequence[Cell]) -> None:
    """Write what is worth keeping of every cell, as <experiment>/<label>/<seed>/<file>."""
    with tarfile.open(out, "w:gz") as archive:
        for file in itertools.chain.from_iterable(cell.folder.files() for cell in done):
            archive.add(file, file.relative_to(file.parents[3]))


def work(args: argparse.Namespace) -> None:
    deadline = time.monotonic() + 60 * args.minutes - ENDING_S
    chosen = ["logger=csv", f"trainer.accelerator={args.device}", *args.overrides]
    if args.minutes < float("inf"):
        chosen.append("autosave_minutes=1000")  # checkpoints stay behind
    if not (grid := all_cells(chosen)):
        return print("all cells are complete")
    check(args.device)
    soonest = grid[: len(SOONEST)]
    try_ways(soonest, args.trial)
    costs = {label(cell): cost_of(cell) for cell in soonest}
    for name, cost in costs.items():
        print(f"{name}: {cost.engine}, {said(cost)}; a run about {cost.run_s / 60:.1f} min", flush=True)
    at_once = num_at_once(list(costs.values()), args.device)
    slowest = max(costs.values(), key=lambda cost: cost.run_s)  # stands for those that were not tried
    seconds = [MARGIN * costs.get(label(cell), slowest).run_s for cell in grid]
    mine = list(itertools.compress(grid, in_time(seconds, deadline - time.monotonic(), at_once)))
    print(f"{len(mine)} of {len(grid)} cells will be over in time, {at_once} at once", flush=True)
    if not mine:
        return
    with until(deadline):
        run(mine, at_once, args.out)


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """End the block, as Ctrl-C would, at a deadline of the monotonic clock or when told to by SIGTERM."""

    def stop(number: int, frame: object) -> None:
        sys.exit("the time is over; the same command goes on")

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGTERM)}
    if deadline < float("inf"):
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def run(mine: Sequence[Cell], at_once: int, out: Path | None) -> None:
    """Run cells, and pack what they left, also if they are ended before."""
    local = OmegaConf.create({"launcher": "local", "jobs": at_once, "name": "gpu"})
    try:
        ended = run_cells(local, mine, 0, len(mine), [])
    finally:
        if out:
            pack(out, mine)
    if any([outcome(cell, how) for cell, how in zip(mine, ended, strict=True)]):
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of every cell")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="until all must be over")
    parser.add_argument("--trial", type=float, default=60.0, help="seconds to try engines and precisions; default: 60")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, help="a .tgz to pack the results into")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message, module="lightning")
    guarded(lambda: work(args))


if __name__ == "__main__":
    main()
