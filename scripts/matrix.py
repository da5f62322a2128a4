"""Runs a grid: every combination of the values in an experiment's `matrix`, each in its own process.

    python scripts/matrix.py experiment=sasg_mnist
    python scripts/matrix.py experiment=sasg_mnist jobs=1 'matrix.seed=[1,19]'
    python scripts/matrix.py experiment=sasg_mnist status                          # what is done, running, failed, left
    python scripts/matrix.py experiment=sasg_mnist launcher=submitit hydra.launcher.partition=cpu  # or joblib, ray

Complete runs are skipped and interrupted ones resumed. A failed run does not stop the others; failures are listed at
the end. Several matrices may share a grid, also from several machines that share its folder: a run that another holds
is looked at again at the end. Further overrides apply to every run. Exit status 1 if a run failed or its files are
damaged, 2 on bad input.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import os
import queue
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.utils import get_class
from omegaconf import DictConfig
from tqdm.auto import tqdm

from bench.errors import InputError
from bench.findings.experiments import Experiment
from bench.findings.figures import refuse_figure
from bench.findings.sample import Ratio, Sample
from bench.findings.table import Table
from bench.findings.tables import refuse_asked, table
from bench.findings.view import View
from bench.runs.described import described
from bench.runs.grid import Cell, cells
from bench.runs.overrides import composable
from bench.runs.whole import write_whole
from bench.suite.scripts.cli import guarded, one_line
from bench.suite.scripts.launchers import INTERRUPTED, Ended, came_out, end_cells, launch, run_alone
from bench.suite.scripts.train import refuse

LOOK_AGAIN_S = 10.0


def matrix(overrides: list[str]) -> None:
    """Run the grid.

    Raises:
        InputError: the config has no grid, or its folders hold runs of another config.
    """
    cfg, grid = cells(overrides)
    if cfg.jobs is not None and not (type(cfg.jobs) is int and cfg.jobs >= 1):
        raise InputError(f"jobs: {cfg.jobs}; at least 1 is needed, or null for one a core")
    refuse_asked(cfg)
    refuse_figure(cfg)
    refuse_cells(grid)
    pending = [cell for cell in grid if not cell.folder.is_complete]
    settings = [override for override in overrides if override.startswith("hydra.launcher.")]
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends its cells, as Ctrl-C
    try:
        ended = run_all(cfg, pending, len(grid), settings)
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = {cell.told: reason for cell, reason in ended if reason}
    damaged = {cell.told: damage for cell in grid if (damage := cell.folder.damage)}
    print(f"{cfg.name}: {len(grid) - len(failed | damaged)} of {len(grid)} runs complete")
    for what, which in (("failed", failed), ("damaged", damaged)):
        for told, reason in which.items():
            print(f"{what}: {told}: {reason}")
    if any(cell.folder.is_complete for cell in grid) and not damaged:
        conclude(cfg, logs=any(cell.folder.is_complete for cell in pending))
    if failed or damaged:
        sys.exit(1)


def refuse_cells(grid: Sequence[Cell]) -> None:
    """Check the configs of the grid, before anything runs. Composing takes long, so of each arm one cell that is to run
    is checked, and one that is complete.

    Raises:
        InputError: a config cannot be run, or a folder holds a run of another one.
    """
    firsts: dict[tuple[str, bool], Cell] = {}
    for cell in grid:
        if (key := (cell.arm, cell.folder.is_complete)) not in firsts and not cell.folder.damage:
            firsts[key] = cell
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        for cell in firsts.values():
            one = compose("train", composable(cell.overrides))
            if not cell.folder.is_complete:
                refuse(one)
            cell.folder.check(described(one))


def run_all(
    cfg: DictConfig, pending: Sequence[Cell], num_cells: int, settings: Sequence[str]
) -> list[tuple[Cell, str | None]]:
    """Run the cells, and wait for those that others hold. Returns each with its last words if it failed, else None."""
    ended = []
    while pending:
        mine = [cell for cell in pending if cell.folder.claim is None]
        how = run_cells(cfg, mine, num_cells - len(pending), num_cells, settings) if mine else []
        found = list(zip(mine, how, strict=True))
        ended += [(cell, outcome(cell, one)) for cell, one in found if not is_held(cell, one)]
        over = {id(cell) for cell, _ in ended}
        pending = [cell for cell in pending if id(cell) not in over and not cell.folder.is_complete]
        if pending and not any(cell.folder.claim is None for cell in pending):
            print(f"{len(pending)} held by others, such as {pending[0].told}: {pending[0].folder.claim_told}")
            time.sleep(LOOK_AGAIN_S)
    return ended


def is_held(cell: Cell, ended: Ended) -> bool:
    """Whether another process than the one that has just ended has taken the cell."""
    if cell.folder.is_complete:
        return False
    claim = cell.folder.claim
    return "another process runs it" in (ended.reason or "") or (
        claim is not None and (claim.host, claim.pid) != (ended.host, ended.pid)
    )


def outcome(cell: Cell, ended: Ended) -> str | None:
    """Why a cell is not complete, which its folder keeps if it failed; None if it is: divergence is a result."""
    if cell.folder.is_complete:
        return None
    if ended.reason is None:
        return f"it ended, and {cell.folder.path} holds no complete run"
    if cell.folder.path.exists() and ended.status not in INTERRUPTED:
        write_whole(cell.folder.failed, f"{ended.reason}\n")
    return ended.reason


def run_cells(
    cfg: DictConfig, mine: Sequence[Cell], num_complete: int, num_cells: int, settings: Sequence[str]
) -> list[Ended]:
    """Run cells by the launcher. Returns how each ended."""
    if cfg.launcher != "local":
        return launch(cfg.launcher, mine, settings)
    num_cores = os.cpu_count() or 1
    jobs = cfg.jobs or (max(1, num_cores // cfg.threads) if cfg.trainer.accelerator == "cpu" else 1)
    bars: queue.Queue[int] = queue.Queue()
    for line in range(1, jobs + 1):
        bars.put(line)

    def run(cell: Cell) -> Ended:
        bar = bars.get()
        try:
            return run_alone(cell.overrides, bar)
        finally:
            bars.put(bar)

    began_at = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool, bar_of_cells(cfg.name, num_complete, num_cells) as progress:
        started = {pool.submit(run, cell): cell for cell in mine}
        try:
            for number, future in enumerate(as_completed(started), start=1):
                cell, ended = started[future], future.result()
                progress.update()
                over = num_complete + number
                to_go = tqdm.format_interval((num_cells - over) * (time.monotonic() - began_at) / number)
                if ended.reason is None and ended.said:
                    tqdm.write(f"{cell.told}: {ended.said}")
                tqdm.write(f"{cell.told}: {came_out(cell.folder, ended)}; {over} of {num_cells}, about {to_go} to go")
        except (KeyboardInterrupt, SystemExit):
            pool.shutdown(wait=False, cancel_futures=True)  # the others must not start
            end_cells()
            raise
    how = {id(cell): future.result() for future, cell in started.items()}
    return [how[id(cell)] for cell in mine]


def bar_of_cells(name: str, num_complete: int, num_cells: int) -> Any:
    """A bar of cells, hidden unless on a terminal. The line of each cell that ends has the time to go."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"
    return tqdm(desc=name, total=num_cells, initial=num_complete, disable=None, bar_format=form, dynamic_ncols=True)


def status(overrides: list[str]) -> None:
    """Print what is done, running, interrupted, failed and left."""
    cfg, grid = cells(overrides)
    counts: dict[str, int] = {}
    for cell in grid:
        state, told = cell.folder.state()
        counts[state] = counts.get(state, 0) + 1
        if state != "complete":
            print(f"{state:12} {cell.told}{f': {told}' * bool(told)}")
    print(f"{cfg.name}: " + ", ".join(f"{number} {state}" for state, number in counts.items()))
    refuse_cells([cell for cell in grid if cell.folder.is_complete])


def log_table(cfg: DictConfig, experiment: Experiment, made: Table) -> None:
    """Log the experiment's table with the logger of its runs, if that logger takes tables."""
    logger = get_class(cfg.logger._target_)
    if not hasattr(logger, "log_experiment"):
        return
    place = {"mode": cfg.wandb_mode, "project": cfg.logger.project, "dir": cfg.logger.save_dir}
    try:
        logger.log_experiment(experiment.folder, experiment.files(), *made.records(), **place)
    except Exception as error:  # the table can be made again; its failure must not fail the runs
        print(f"logger: the table was not logged: {one_line(error)}", file=sys.stderr)


def conclude(cfg: DictConfig, logs: bool) -> None:
    """Say which recipe saves most, if the experiment's table has savings, and what shows the rest.

    Args:
        cfg: with a complete run.
        logs: whether to log the table, too.
    """
    try:
        experiment = Experiment.read(cfg.name, Path(cfg.results_dir), View(target=cfg.target.value))
        made = table(experiment)
    except Exception as error:  # the table can be made again; its failure must not fail the runs
        return print(f"table: not made: {one_line(error)}", file=sys.stderr)
    if logs:
        log_table(cfg, experiment, made)
    to = (experiment.spec.get("table") or {}).get("to", "sgd")
    saved = [(row, row.get("total_bits_saving")) for row in made.rows if row["recipe"] != to]
    savings = [(saving.value, row) for row, saving in saved if isinstance(saving, Ratio)]
    if savings:
        _, best = max(savings, key=lambda each: each[0])
        (column,) = (column for column in made.columns if column.key == "total_bits_saving")
        print(f"{cfg.name}: {best['recipe']} saves most of {to}'s bits, both ways: {made.text(best, column)}")
    elif (reached := [each for row in made.rows if isinstance(each := row.get("round"), Sample)]) and not any(
        each.values for each in reached
    ):
        print(f"{cfg.name}: no run has reached {cfg.target.metric} {cfg.target.value:g}")
    print(f"next: tables.py {cfg.name} --print, figures.py {cfg.name}, dashboard.py")


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "status"]
    guarded(lambda: (status if "status" in sys.argv[1:] else matrix)(arguments))


if __name__ == "__main__":
    main()
