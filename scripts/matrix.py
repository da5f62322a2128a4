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
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from tqdm.auto import tqdm

from bench.errors import InputError
from bench.results import RunFolder
from scripts.cli import guarded

TRAIN = Path(__file__).with_name("train.py")


@dataclass(frozen=True)
class Pick:
    """A choice along one axis of the grid: what it adds to the folder's name, and its overrides."""

    label: str
    overrides: list[str]


@dataclass(frozen=True)
class Cell:
    """One run of the grid: what tells it from the others, its overrides, and where it goes."""

    told: str
    overrides: list[str]
    folder: RunFolder


def cells(overrides: list[str]) -> tuple[DictConfig, list[Cell]]:
    """The grid that these overrides describe, and the config they share.

    Raises:
        InputError: the config has no matrix.
        HydraException: a key of the matrix is not in the config.
    """
    with initialize_config_module("configs", version_base="1.3"):
        shared = compose("train", overrides)
        if not shared.matrix:
            raise InputError("experiment: none with a matrix given; for one run there is scripts/train.py")
        axes = OmegaConf.to_container(shared.matrix)
        assert isinstance(axes, dict)
        given = [o for o in overrides if not o.lstrip("+").startswith(("matrix.", "jobs="))]
        named = [] if {"algorithm", "arms"} & axes.keys() else [shared.algorithm.name]
        grid = []
        given_axes = {str(key): values for key, values in axes.items() if values is not None}  # null: one left out
        for picks in itertools.product(*(_axis(key, values) for key, values in given_axes.items())):
            chosen = [override for pick in picks for override in pick.overrides]
            label = ",".join([*named, *(pick.label for pick in picks if pick.label)])
            seed = dict(o.split("=", 1) for o in chosen).get("seed", shared.seed)
            folder = RunFolder.of(OmegaConf.merge(shared, {"label": label, "seed": seed}))
            grid.append(Cell(" ".join(chosen), [*given, f"label='{label}'", *chosen], folder))
        compose("train", grid[0].overrides)  # a misspelt key is told at once; composing every cell takes long
    return shared, grid


def _axis(key: str, values: Any) -> list[Pick]:
    """The choices along one key of a matrix."""
    if key == "arms":
        return [pick for name, changes in values.items() if changes is not None for pick in _arm(name, changes)]
    labels = {"algorithm": "{value}", "seed": ""}  # the folder's name and the run's in it; others say what they are
    form = labels.get(key, f"{key.rpartition('.')[2]}={{value}}")
    return [Pick(form.format(value=value), [_override(key, value)]) for value in values]


def _override(key: str, value: Any) -> str:
    return f"{key}={'null' if value is None else value}"


def _arm(name: str, changes: dict[str, Any]) -> list[Pick]:
    """An arm of the grid; where it lists values, one for each combination."""
    fixed = [_override(key, value) for key, value in changes.items() if not isinstance(value, list)]
    axes = [_axis(key, values) for key, values in changes.items() if isinstance(values, list)]
    return [
        Pick(
            ",".join([name, *(pick.label for pick in picks)]), [*fixed, *(o for pick in picks for o in pick.overrides)]
        )
        for picks in itertools.product(*axes)
    ]


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
    if done.returncode == 0 or cell.folder.is_complete:  # complete because it diverged, which is a result
        if done.stderr.strip():
            tqdm.write(f"{cell.told}: {done.stderr.strip()}")
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
                told, reason = started[future].told, future.result()
                if reason:
                    failed[told] = reason
                progress.update()
                pace_s = progress.format_dict["elapsed"] / (progress.n - progress.initial)
                to_go = tqdm.format_interval((progress.total - progress.n) * pace_s)
                tqdm.write(f"{told}: {reason or 'complete'}; {progress.n} of {progress.total}, about {to_go} to go")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the running ones got the interrupt, too; the rest shall not start
            raise
    print(f"{cfg.name}: {len(grid) - len(failed)} of {len(grid)} runs complete")
    for told, reason in failed.items():
        print(f"failed: {told}: {reason}")
    if failed:
        sys.exit(1)


def main() -> None:
    guarded(lambda: matrix(sys.argv[1:]))


if __name__ == "__main__":
    main()
