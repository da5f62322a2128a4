"""Runs one recipe once.

    python scripts/train.py algorithm=sasg data=mnist seed=1
    python scripts/train.py algorithm=sparse algorithm.compressor.density=0.001 world=processes workers=4
    python scripts/train.py --help

Writes results/<name>/<label>/seed=<n>/, and resumes an interrupted run there. Exit status 2 on bad input. Under
Hydra's -m, a run that fails prints why and the other runs go on.
"""

import itertools
import logging
import math
import os
import re
import signal
import subprocess
import sys
import warnings
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bench.searchpath import searched
from bench.suite.scripts.cli import IN_FULL, guarded
from bench.suite.scripts.leaving import REQUEUEING, leave, leave_group, requeued_from_now_on, without_requeueing
from bench.suite.scripts.loggers import logging_to
from bench.suite.scripts.waiting import say_what_takes_long

# Keys that do not change a result: where it is stored, how it is logged, the grid around it, how it is presented.
NOT_RESULTS = (
    "results_dir",
    "data_dir",
    "label",
    "logger",
    "wandb_mode",
    "autosave_minutes",
    "matrix",
    "tune",
    "jobs",
    "launcher",
    "paper",
    "logs",
    "hours",
    "figure",
    "table",
    "tables",
)

# Arguments of lightning.Trainer that train.py sets itself.
OURS = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
}
HANDED_OVER = ("strategy", "logger", "callbacks", "default_root_dir", "plugins")
UNMEANT = {"max_time": None, "fast_dev_run": False, "barebones": False, "accumulate_grad_batches": 1}
# The first three end a run early or without its history; the last breaks the history, in which a batch is a round.

HARMLESS = (
    ".*does not have many workers",  # data are batched on the device
    ".*sync_dist=True",  # every process evaluates the same weights on the same test set
    ".*smaller than the logging interval",  # rows are logged at evaluations, not at steps
    ".*LeafSpec",  # caused by Lightning itself
)


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

    helpers = re.findall(r"\$\{\.*(\w+)", OmegaConf.to_yaml(cfg))
    meant = [name for name, usual in UNMEANT.items() if cfg.trainer.get(name) not in (None, usual)]
    refuse_settings(resolved(cfg), helpers, lightning.Trainer, (*OURS, *HANDED_OVER, *meant))
    refuse_target(cfg.target.metric)
    if cfg.trainer.accelerator in ("cuda", "gpu") and not torch.accelerator.is_available():
        raise InputError(f"trainer.accelerator: {cfg.trainer.accelerator}; there is none here, cpu is allowed")


def train_in_rounds(
    cfg: DictConfig, folder: Any, config: dict[str, Any], command: str, claim: Any, joined: Any
) -> None:
    """Run synchronous workers, under Lightning.

    Args:
        claim: on the run; None in all processes but one.
        joined: the processes of the run, where torchrun or SLURM started them; else None.
    """
    from bench.configured import instantiate
    from bench.recipes import make_recipe
    from bench.runs.autosave import Autosave
    from bench.runs.history import History
    from bench.runs.progress import Progress
    from bench.suite.datamodules.images import SplitPicture

    link = instantiate(cfg.link)
    link.refuse(make_recipe(cfg.algorithm))
    strategy, module = strategy_and_module(cfg)
    strategy.ending_signals = (signal.SIGINT, signal.SIGTERM, *REQUEUEING)
    history = History(folder, config, command, link)
    callbacks = [
        history,
        SplitPicture(folder.path / "split.png"),
        Progress(f"{cfg.label} seed={cfg.seed}", claim),
        Autosave(folder.checkpoint, timedelta(minutes=cfg.autosave_minutes)),  # after those that a checkpoint holds
    ]
    with logging_to(cfg, folder) as logger:
        trainer = fit(cfg, folder, joined, module, strategy=strategy, logger=logger, callbacks=callbacks)
    if trainer.is_global_zero:
        metric = cfg.target.metric
        print(f"{folder.path}: complete, {metric} {history.rows[-1][metric]:.4g}")


def strategy_and_module(cfg: DictConfig) -> tuple[Any, Any]:
    """The strategy that a config describes, and the module, drawn from its seed."""
    import lightning

    from bench.configured import instantiate
    from bench.recipes import make_recipe
    from bench.runs.module import Classifier

    strategy = instantiate(cfg.strategy, _partial_=True)(
        algorithm=make_recipe(cfg.algorithm),
        adversary=instantiate(cfg.get("adversary")),
        estimator=instantiate(cfg.get("estimator")),
        seed=cfg.seed,
        engine=cfg.engine,
    )
    lightning.seed_everything(cfg.seed, verbose=False)
    objective = instantiate(cfg.get("objective")) or Classifier
    return strategy, objective(instantiate(cfg.model), instantiate(cfg.optimizer), instantiate(cfg.get("schedule")))


def fit(cfg: DictConfig, folder: Any, joined: Any, module: Any, **parts: Any) -> Any:
    """Train a module in a Trainer made of `parts`, from the run's last checkpoint if there is one. Returns the Trainer.

    Raises:
        InputError: the Trainer cannot be made, or has another number of workers; the checkpoint is damaged.
        NonFiniteError: training diverged.
    """
    import lightning

    import bench
    from bench.configured import instantiate
    from bench.errors import InputError, Preempted

    try:
        trainer = lightning.Trainer(
            **parts, default_root_dir=folder.path, plugins=without_requeueing(), **OURS, **cfg.trainer
        )
    except (TypeError, ImportError) as error:  # Lightning raises these for devices that are invalid or not installed
        raise InputError(f"trainer: {error}") from error
    if (size := trainer.strategy.world.size) != cfg.workers:  # pyright: ignore[reportAttributeAccessIssue]
        key = "trainer.devices" if isinstance(trainer.strategy, bench.CompressedDDPStrategy) else "strategy.workers"
        raise InputError(f"{key}: {size}; as many as workers are needed, {cfg.workers}")
    look = folder.checked_checkpoint
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in REQUEUEING}
    try:
        with joined.shared(look, folder.checkpoint) if joined else nullcontext(look()) as resume:
            if resume and trainer.is_global_zero:
                print(f"{folder.path}: resuming from its last checkpoint")
            only = True if resume else None
            trainer.fit(module, datamodule=instantiate(cfg.data), ckpt_path=resume, weights_only=only)
    except Preempted as told:
        if trainer.is_global_zero:
            by = signal.Signals(told.number or signal.SIGTERM).name
            print(f"{folder.path}: ended by {by} after round {told.round}; the same command goes on", file=sys.stderr)
        leave(told.number, handlers.get(told.number))
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.interrupted:
            print(f"{folder.path}: interrupted; the same command resumes it", file=sys.stderr)
            sys.exit(130)
        raise
    return trainer


def train_asynchronously(cfg: DictConfig, folder: Any, config: dict[str, Any], command: str) -> None:
    """Run threads on shared memory. They have no rounds, so neither Lightning nor checkpoints are used."""
    import numpy as np

    from bench.configured import instantiate
    from bench.errors import InputError, NonFiniteError
    from bench.recipes import make_recipe
    from bench.runs.pace import paced
    from bench.runs.targets import refuse_target
    from bench.suite.datamodules.synthetic import SVMData
    from bench.suite.models.linear import Hinge

    data, objective = instantiate(cfg.data), instantiate(cfg.get("objective"))
    if not isinstance(data, SVMData) or objective is None or not isinstance(objective.keywords["loss"], Hinge):
        raise InputError("world: threads; data=gspar_svm and objective=hinge are needed, or another world")
    for group in ("adversary", "estimator", "schedule"):
        if cfg.get(group) is not None:
            raise InputError(f"{group}: {cfg[group]._target_}; not available with world=threads, null is needed")
    if set(cfg.optimizer) - {"_target_", "_partial_", "lr"} or not cfg.optimizer._target_.endswith(".SGD"):
        raise InputError(f"optimizer: {cfg.optimizer._target_}; world=threads takes plain sgd only")
    refuse_target(cfg.target.metric, {"train_loss": 0})
    features, labels = data.draw()
    signed = np.ascontiguousarray(features * labels[:, None], np.float32)
    algorithm, ridge = make_recipe(cfg.algorithm), objective.keywords["ridge"]
    with logging_to(cfg, folder) as logger:
        rows, facts = instantiate(cfg.asynchronous).train(algorithm, signed, ridge, cfg.optimizer.lr, cfg.seed)
        finite = list(itertools.takewhile(lambda row: math.isfinite(row["train_loss"]), rows))
        if len(finite) < len(rows):
            facts["diverged"] = f"update {rows[len(finite)]['round']}: the loss is not finite"
        folder.write_config(config)
        folder.write_summary(finite, cfg.target, command, downlink="", num_cores=os.cpu_count(), **facts)
        if logger:
            logger.log_hyperparams(config)
            for row in paced(finite, cfg.optimizer.lr):
                logger.log_metrics(row, step=row["round"])
            logger.finalize("success")
    if "diverged" in facts:
        raise NonFiniteError(facts["diverged"])
    print(f"{folder.path}: complete, train_loss {rows[-1]['train_loss']:.4g}")


def described(cfg: DictConfig) -> dict[str, Any]:
    """The contents of config.yaml: everything that a result depends on."""
    plain = resolved(cfg)
    plain["data"].pop("data_dir", None)
    if (strategy := plain.get("strategy")) and strategy.get("collective") != "allreduce":
        strategy.pop("collective", None)  # with all others the result is the same
    return {key: value for key, value in plain.items() if key not in NOT_RESULTS}


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, but for its recipe's knobs, on which no run depends."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    plain["algorithm"].pop("knobs", None)
    return {str(key): value for key, value in plain.items()}


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
