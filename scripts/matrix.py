"""A grid of runs: every combination of an experiment's `matrix`, a process each.

    python scripts/matrix.py experiment=sasg_mnist
    python scripts/matrix.py experiment=sasg_mnist jobs=1 'matrix.seed=[1,19]'

Skips what is complete, resumes what was interrupted, goes on past a cell that fails, and says at the end which
did. Further overrides go to every run. Exit status 1 if a cell failed, 2 on bad input.
"""

import itertools
import os
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from tqdm.auto import tqdm

from bench.errors import InputError
from bench.results import RunFolder
from scripts.cli import guarded

TRAIN = Path(__file__).with_name("train.py")


@dataclass(frozen=True)
class Cell:
    """One run of the grid: what tells it from the others, its overrides, and where it goes."""

    label: str
    overrides: list[str]
    folder: RunFolder


def cells(overrides: list[str]) -> tuple[DictConfig, list[Cell]]:
    """The grid that these overrides describe, and the config they share.

    Raises:
        InputError: the config has no matrix.
    """
    with initialize_config_module("configs", version_base="1.3"):
        shared = compose("train", overrides)
        if not shared.matrix:
            raise InputError("experiment: none with a matrix given; for one run there is scripts/train.py")
        grid = []
        for values in itertools.product(*shared.matrix.values()):
            chosen = [f"{key}={value}" for key, value in zip(shared.matrix, values, strict=True)]
            own = [o for o in overrides if not o.startswith(("matrix.", "jobs="))] + chosen
            cfg = compose("train", own)
            grid.append(Cell(" ".join(chosen), own, RunFolder.of(cfg)))
    return shared, grid


def run(cell: Cell, bars: "queue.Queue[int]") -> str | None:
    """Run a cell in a process of its own; the reason if it failed."""
    line = bars.get()
    try:
        environment = {**os.environ, "TQDM_POSITION": str(line)}  # where tqdm draws the run's bar
        done = subprocess.run(
            [sys.executable, TRAIN, *cell.overrides], stderr=subprocess.PIPE, text=True, env=environment
        )
    finally:
        bars.put(line)
    if done.returncode == 0:
        if done.stderr.strip():
            tqdm.write(f"{cell.label}: {done.stderr.strip()}")
        return None
    said = [text for text in done.stderr.splitlines() if text.strip()]
    return said[-1] if said else f"ended by signal {-done.returncode}"


def matrix(overrides: list[str]) -> None:
    """Run the grid."""
    cfg, grid = cells(overrides)
    pending = [cell for cell in grid if not cell.folder.is_complete]
    num_cores = os.cpu_count() or 1
    jobs = cfg.jobs or (max(1, num_cores // cfg.threads) if cfg.trainer.accelerator == "cpu" else 1)
    bars: queue.Queue[int] = queue.Queue()
    for line in range(1, jobs + 1):
        bars.put(line)
    failed: dict[str, str] = {}
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(
            desc=cfg.name, total=len(grid), initial=len(grid) - len(pending), unit="run", dynamic_ncols=True
        ) as progress,
    ):
        started = {pool.submit(run, cell, bars): cell for cell in pending}
        try:
            for future in as_completed(started):
                label, reason = started[future].label, future.result()
                tqdm.write(f"{label}: {reason or 'complete'}")
                if reason:
                    failed[label] = reason
                progress.update()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the running ones got the interrupt, too; the rest shall not start
            raise
    print(f"{cfg.name}: {len(grid) - len(failed)} of {len(grid)} runs complete")
    for label, reason in failed.items():
        print(f"failed: {label}: {reason}")
    if failed:
        sys.exit(1)


def main() -> None:
    guarded(lambda: matrix(sys.argv[1:]))


if __name__ == "__main__":
    main()
