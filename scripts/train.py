"""Runs one recipe once.

    python scripts/train.py algorithm=sasg data=mnist seed=1
    python scripts/train.py algorithm=sparse algorithm.compressor.density=0.001 world=processes workers=4
    python scripts/train.py --help

Writes results/<name>/<label>/seed=<n>/, and resumes an interrupted run there. Exit status 2 on bad input. Under
Hydra's -m, a run that fails prints why and the other runs go on.
"""

import logging
import os
import re
import subprocess
import sys
import warnings
from contextlib import ExitStack
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bench.runs.described import described, resolved
from bench.searchpath import searched
from bench.suite.scripts.cli import IN_FULL, guarded
from bench.suite.scripts.leaving import leave_group, requeued_from_now_on
from bench.suite.scripts.waiting import say_what_takes_long

HANDED_OVER = ("strategy", "logger", "callbacks", "default_root_dir", "plugins")
UNMEANT = {"max_time": None, "fast_dev_run": False, "barebones": False, "accumulate_grad_batches": 1}
"""The first three end a run early or without its history; the last breaks the history, in which a batch is a round."""


def train(cfg: DictConfig, overrides: list[str]) -> None:
    """Run the config, or the rest of an interrupted run. `overrides`: those behind the config, for summary.json.

    Raises:
        InputError: the config cannot be run, or the results folder was written under another config.
        NonFiniteError: training diverged. That is a result: it is stored with all evaluations before it.
    """
    say_what_takes_long()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # a lost worker has one line, and not stacks of C++ besides
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    import bench  # noqa: F401  registers the strategies; each launched process needs this
    from bench.runs.results import RunFolder
    from bench.suite.scripts.rounds import HARMLESS, train_in_rounds

    refuse(cfg)
    torch.set_num_threads(cfg.threads)
    os.environ["OMP_NUM_THREADS"] = str(cfg.threads)  # else Lightning shares all cores out among a machine's processes
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message, module="lightning")
    folder, config = RunFolder.of(cfg), described(cfg)
    command = " ".join(["python scripts/train.py", *overrides])
    leads, joined = getattr(rank_zero_only, "rank", 0) == 0, joined_with_others(cfg)
    claim = None
    with ExitStack() as held:

        def begun() -> bool:
            """Take hold of the run. Returns whether it is complete."""
            nonlocal claim
            folder.check(config)
            claim = held.enter_context(folder.held())
            return folder.is_complete

        is_complete = joined.told(begun) if joined else leads and begun()
        if is_complete and leads:
            folder.history()  # a complete run has one
            diverged = folder.summary().get("diverged")
            if folder.config().get("link") != config.get("link"):
                print(f"{folder.path}: recorded on another link; scripts/tables.py link= shows this one")
            print(f"{folder.path}: complete already" + (f", diverged: {diverged}" if diverged else ""))
        elif "asynchronous" in cfg:
            from bench.suite.scripts.threads import train_asynchronously

            train_asynchronously(cfg, folder, config, command)
        elif not is_complete:
            train_in_rounds(cfg, folder, config, command, claim, joined)


def joined_with_others(cfg: DictConfig) -> Any:
    """This process joined with those of its run, if torchrun or SLURM started them; else None."""
    from lightning.pytorch.strategies import DDPStrategy

    from bench.configured import get_object, instantiate
    from bench.runs.joining import Joined, launched_by

    if "strategy" not in cfg or not issubclass(get_object(cfg.strategy._target_), DDPStrategy):
        return None
    launcher = launched_by()
    return Joined(launcher, instantiate(cfg.strategy.timeout)) if launcher else None


def refuse(cfg: DictConfig) -> None:
    """Raise InputError if the config cannot be run here, as far as can be seen before its parts are instantiated."""
    import lightning
    import torch

    from bench.errors import InputError
    from bench.runs.settings import refuse_settings
    from bench.runs.targets import refuse_target
    from bench.suite.scripts.rounds import OURS

    helpers = re.findall(r"\$\{\.*(\w+)", OmegaConf.to_yaml(cfg))
    meant = [name for name, usual in UNMEANT.items() if cfg.trainer.get(name) not in (None, usual)]
    refuse_settings(resolved(cfg), helpers, lightning.Trainer, (*OURS, *HANDED_OVER, *meant))
    refuse_target(cfg.target.metric)
    if cfg.trainer.accelerator in ("cuda", "gpu") and not torch.accelerator.is_available():
        raise InputError(f"trainer.accelerator: {cfg.trainer.accelerator}; there is none here, cpu is allowed")


@hydra.main(version_base="1.3", config_path="pkg://bench.suite.configs", config_name="train")
def _hydra_main(cfg: DictConfig) -> None:
    os.environ["HYDRA_FULL_ERROR"] = str(int(IN_FULL))  # restored, for the processes of a run
    job = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(job.overrides.task)  # as they were given, interpolations too
    if job.mode is not RunMode.MULTIRUN:
        guarded(lambda: train(cfg, overrides))  # guarded inside Hydra, which would add its own lines to an error
        leave_group()
        return
    os.environ.pop("WANDB_RUN_ID", None)  # names a single run; each job needs its own
    launches = job.runtime.choices.get("world") == "processes" and "LOCAL_RANK" not in os.environ
    try:
        guarded(lambda: train_apart(overrides) if launches else train(cfg, overrides))
    except SystemExit as ended:
        if ended.code != 2:
            raise
        # The sweep goes on with its other runs.


def train_apart(overrides: list[str]) -> None:
    """Run a job of a sweep in its own process. Lightning's launcher would repeat the command line of the whole sweep,
    and leave behind environment variables and a process group that the next job would take for its own.

    Raises:
        CalledProcessError: the job crashed.
    """
    with subprocess.Popen([sys.executable, __file__, *overrides]) as process:
        code = process.wait()
    if code == 2:
        sys.exit(2)  # the job has printed why
    if code:
        raise subprocess.CalledProcessError(code, process.args)


def main() -> None:
    def composed() -> None:
        if any("null" in argument for argument in sys.argv):  # the import is slow, and --help should be quick
            say_what_takes_long()
            from bench.runs.overrides import composable

            sys.argv[1:] = composable(sys.argv[1:])
        sys.argv[1:] = searched(sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
        _hydra_main()

    requeued_from_now_on()
    guarded(composed)


if __name__ == "__main__":
    sys.exit(main())
