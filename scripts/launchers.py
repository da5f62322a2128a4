"""Runs cells of a grid: in processes of this machine, or by one of Hydra's launchers.

    launcher=local      processes of this machine, `jobs` at once (the default)
    launcher=joblib     the same by joblib; hydra.launcher.n_jobs=4
    launcher=submitit   SLURM; hydra.launcher.partition=gpu hydra.launcher.timeout_min=600
    launcher=ray        a Ray cluster; hydra.launcher.ray.init.address=auto

Each cell runs in a fresh process. Settings of a launcher begin with `hydra.launcher.`.
"""

import io
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict

from bench.errors import InputError
from bench.extras import need
from bench.runs.grid import Cell
from bench.runs.overrides import composable
from bench.runs.results import RunFolder
from bench.suite.scripts import train
from bench.suite.scripts.cli import one_line

TRAIN = Path(__file__).with_name("train.py")
LAUNCHERS = {
    "joblib": ("joblib", "joblib"),
    "submitit": ("submitit_slurm", "submitit"),
    "submitit_local": ("submitit_local", "submitit"),  # submitit without SLURM, to try it
    "ray": ("ray", "ray"),
}
"""By our name: Hydra's, and the package that has it."""


INTERRUPTED = (130, 138, 143)
"""Exit statuses of a run that was told to end, and has saved itself."""


@dataclass(frozen=True)
class Ended:
    """How a cell's process ended.

    Attributes:
        reason: why it is not complete; None if it is.
        said: all that it said on stderr.
        status: its exit status, negative if a signal ended it.
        host, pid: which process it was.
    """

    reason: str | None
    said: str = ""
    status: int = 0
    host: str = ""
    pid: int = 0


WARM = multiprocessing.get_context("forkserver")
"""Forks each cell from a process that has imported what cells need, which takes seconds, and has started no thread."""

WARM.set_forkserver_preload(["bench.suite.scripts.train", "bench.runs.autosave", "bench.runs.history",
                             "bench.runs.module", "bench.runs.progress", "bench.suite.datamodules.images"])  # fmt: skip

_RUNNING: set[Any] = set()


def run_alone(overrides: Sequence[str], bar: int | None = None) -> Ended:
    """Run a cell in a process of its own, which is silent but for its progress bar.

    Args:
        overrides: of the cell.
        bar: the line of its progress bar; None for no bar.
    """
    environment = {**os.environ, "TQDM_POSITION": str(bar or 0)}
    environment.pop("WANDB_RUN_ID", None)  # names a single run; each cell needs its own
    reading, writing = os.pipe()
    shown = os.open(os.devnull, os.O_WRONLY) if bar is None else os.dup(1)
    streams = [Connection(descriptor, readable=False) for descriptor in (shown, writing)]
    process = WARM.Process(target=_train, args=(list(overrides), environment, *streams))
    process.start()
    for stream in streams:
        stream.close()
    _RUNNING.add(process)
    with open(reading, encoding="utf-8", errors="replace") as errors:
        said = errors.read().strip()
    process.join()
    _RUNNING.discard(process)
    status, reason = process.exitcode or 0, None
    if status < 0:
        reason = f"ended by {signal.Signals(-status).name}"
    elif status:
        reason = said.splitlines()[-1] if said else f"exit status {status}"
    return Ended(reason, said, status, socket.gethostname(), process.pid or 0)


def _train(overrides: list[str], environment: dict[str, str], output: Connection, errors: Connection) -> None:
    """Be `python scripts/train.py`, with this environment and these streams."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    sys.stdout = io.StringIO()  # the bar is drawn on sys.__stdout__
    sys.argv = [str(TRAIN), *overrides]
    sys.modules["__main__"].__spec__ = None  # else Lightning would start the other processes of a run as matrix.py's
    train.main()


def end_cells() -> None:
    """Tell the cells that run here to end; each saves a checkpoint, from which it goes on another time."""
    for process in list(_RUNNING):
        process.terminate()


def run_job(config: DictConfig) -> Ended:
    """The task of a job, wherever its launcher runs it: a cell, and a line that says what came out. If the job is told
    to end, so is its cell."""
    job = HydraConfig.get().overrides
    places = [override for override in job.hydra if override.startswith("hydra.searchpath=")]
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("forkserver", force=True)  # a cell is told it, and does not know joblib's own
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: end_cells())
    ended = run_alone([*places, *job.task])
    print(f"{config.label} seed={config.seed}: {came_out(RunFolder.of(config), ended)}", flush=True)
    return ended


def came_out(folder: RunFolder, ended: Ended) -> str:
    """What came out of a cell whose process has ended: its last evaluation, where it diverged, or why it failed."""
    if not folder.is_complete:
        return ended.reason or "not complete"
    summary = folder.summary()
    if "diverged" in summary:
        return f"diverged: {summary['diverged']}"
    metric = summary["target"]["metric"]
    return f"{metric} {summary[metric]:.4g}"


def launch(name: str, cells: Sequence[Cell], settings: Sequence[str]) -> list[Ended]:
    """Have a launcher of Hydra's run cells, and wait for them. Returns how each ended.

    Args:
        name: of the launcher.
        cells: to run.
        settings: of the launcher, as overrides.

    Raises:
        InputError: an unknown launcher, or one whose package is missing.
    """
    if name not in LAUNCHERS:
        raise InputError(f"launcher: {name!r}; one of local, {', '.join(LAUNCHERS)} is needed")
    theirs, package = LAUNCHERS[name]
    need(f"launcher: {name}", f"hydra_plugins.hydra_{package}_launcher")
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        asked = [f"hydra/launcher={theirs}", "hydra.output_subdir=null", *settings]
        config = hydra.compose_config("train", asked, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        with open_dict(config):
            config.hydra.job.name = "matrix"
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=run_job, config=config)
        try:
            returned = launcher.launch([composable(cell.overrides) for cell in cells], 0)
        except Exception as error:  # of a job that was cancelled, lost or out of time: the others have their folders
            return [Ended(one_line(error))] * len(cells)
    return list(map(_result, returned))


def _result(job: Any) -> Ended:
    """What a job returned, or why it did not."""
    try:
        return job.return_value
    except Exception as error:
        return Ended(one_line(error))
