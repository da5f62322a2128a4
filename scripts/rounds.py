"""A run of synchronous workers, under Lightning."""

import signal
import sys
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import lightning
from omegaconf import DictConfig

from bench.configured import instantiate
from bench.errors import InputError, Preempted
from bench.recipes import make_recipe
from bench.runs.autosave import Autosave
from bench.runs.history import History
from bench.runs.module import Classifier
from bench.runs.progress import Progress
from bench.strategies.processes import CompressedDDPStrategy
from bench.suite.datamodules.images import SplitPicture
from bench.suite.scripts.leaving import REQUEUEING, leave, without_requeueing
from bench.suite.scripts.loggers import logging_to

OURS = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
}
"""Arguments of lightning.Trainer that are the same for all runs."""

HARMLESS = (
    ".*does not have many workers",  # data are batched on the device
    ".*sync_dist=True",  # every process evaluates the same weights on the same test set
    ".*smaller than the logging interval",  # rows are logged at evaluations, not at steps
    ".*LeafSpec",  # caused by Lightning itself
)


def train_in_rounds(
    cfg: DictConfig, folder: Any, config: dict[str, Any], command: str, claim: Any, joined: Any
) -> None:
    """Run synchronous workers, under Lightning.

    Args:
        claim: on the run; None in all processes but one.
        joined: the processes of the run, where torchrun or SLURM started them; else None.
    """
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
    try:
        trainer = lightning.Trainer(
            **parts, default_root_dir=folder.path, plugins=without_requeueing(), **OURS, **cfg.trainer
        )
    except (TypeError, ImportError) as error:  # Lightning raises these for devices that are invalid or not installed
        raise InputError(f"trainer: {error}") from error
    if (size := trainer.strategy.world.size) != cfg.workers:  # pyright: ignore[reportAttributeAccessIssue]
        key = "trainer.devices" if isinstance(trainer.strategy, CompressedDDPStrategy) else "strategy.workers"
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
