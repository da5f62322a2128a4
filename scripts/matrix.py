"""Runs a grid: every combination of the values in an experiment's `matrix`, each in its own process.

    python scripts/matrix.py experiment=sasg_mnist
    python scripts/matrix.py experiment=sasg_mnist jobs=1 'matrix.seed=[1,19]'

Complete runs are skipped and interrupted ones resumed. A failed run does not stop the others; failures are listed at
the end. Further overrides apply to every run. Exit status 1 if a run failed, 2 on bad input.
"""

import os
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.utils import get_class
from omegaconf import DictConfig
from tqdm.auto import tqdm

from bench.errors import InputError
from bench.findings.experiments import Experiment
from bench.findings.tables import table
from bench.findings.view import View
from bench.runs.grid import Cell, cells
from bench.runs.overrides import composable
from bench.suite.scripts.cli import guarded, one_line
from bench.suite.scripts.train import described, refuse

TRAIN = Path(__file__).with_name("train.py")


def run(cell: Cell, bars: "queue.Queue[int]") -> str | None:
    """Run a cell in its own process. Returns the reason if it failed, else None."""
    line = bars.get()
    try:
        environment = {**os.environ, "TQDM_POSITION": str(line)}  # the line of the run's progress bar
        environment.pop("WANDB_RUN_ID", None)  # names a single run; each cell needs its own
        done = subprocess.run(
            [sys.executable, TRAIN, *cell.overrides], stderr=subprocess.PIPE, text=True, env=environment
        )
    finally:
        bars.put(line)
    if done.returncode == 0 or cell.folder.is_complete:  # a diverged run fails but is complete: divergence is a result
        if done.stderr.strip():
            tqdm.write(f"{cell.told}: {done.stderr.strip()}")
        return None
    said = [text for text in done.stderr.splitlines() if text.strip()]
    return said[-1] if said else f"ended by signal {-done.returncode}"


def matrix(overrides: list[str]) -> None:
    """Run the grid.

    Raises:
        InputError: the config has no grid, or its folders hold runs of another config.
    """
    cfg, grid = cells(overrides)
    if cfg.jobs is not None and not (isinstance(cfg.jobs, int) and cfg.jobs >= 1):
        raise InputError(f"jobs: {cfg.jobs}; at least 1 is needed, or null for one a core")
    pending = [cell for cell in grid if not cell.folder.is_complete]
    # Report a misspelt key or another config before anything runs. Only one cell is checked: composing each takes long.
    first = next((cell for cell in grid if cell.folder.is_complete), grid[0])
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        one = compose("train", composable(first.overrides))
        refuse(one)
        first.folder.check(described(one))
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
            pool.shutdown(cancel_futures=True)  # running cells got the interrupt as well; the others must not start
            raise
    print(f"{cfg.name}: {len(grid) - len(failed)} of {len(grid)} runs complete")
    for told, reason in failed.items():
        print(f"failed: {told}: {reason}")
    if any(cell.folder.is_complete for cell in pending):
        log_table(cfg)
    if failed:
        sys.exit(1)


def log_table(cfg: DictConfig) -> None:
    """Log the experiment's table with the logger of its runs, if that logger takes tables."""
    logger = get_class(cfg.logger._target_)
    if not hasattr(logger, "log_experiment"):
        return
    place = {"mode": cfg.wandb_mode, "project": cfg.logger.project, "dir": cfg.logger.save_dir}
    try:
        experiment = Experiment.read(cfg.name, Path(cfg.results_dir), View(target=cfg.target.value))
        logger.log_experiment(experiment.folder, experiment.files(), *table(experiment).records(), **place)
    except Exception as error:  # the table can be made again; its failure must not fail the runs
        print(f"logger: the table was not logged: {one_line(error)}", file=sys.stderr)


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    guarded(lambda: matrix(sys.argv[1:]))


if __name__ == "__main__":
    main()
