"""The checkpoint from which an interrupted run resumes."""

import copy
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning import Callback, Trainer

from bench.collectives.report import END, SAVE, Report
from bench.errors import Preempted
from bench.runs.history import compressed
from bench.runs.whole import going_on, replacing


class Autosave(Callback):
    """Saves the whole run after an evaluation or a round, at least `interval` apart, and when it is told to end.

    An evaluation that is under way when the run is told to end is dropped; the run that goes on repeats it. After the
    last round there is nothing to go on with: the run completes.

    Args:
        path: the checkpoint, replaced each time.
        interval: the least time between two; if 0, one follows each evaluation.
    """

    def __init__(self, path: Path, interval: timedelta) -> None:
        self.path = path
        self.interval_s = interval.total_seconds()
        self.evaluates = False  # whether the checkpoint is of a round whose evaluation is still to come
        self.report: torch.Tensor | None = None  # of that round
        self.loops: dict[str, Any] = {}  # progress at that round

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self.saved_at = time.monotonic()
        if self.evaluates:
            compressed(trainer).listen()  # which it would only do after all callbacks have started
            self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        """Repeat the evaluation that was due when the run ended."""
        assert self.report is not None
        compressed(trainer).fitting.report = Report.unpack(self.report.numpy())
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False
        trainer.validating = True
        loop.run()
        trainer.training = True
        self.evaluates = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_global_zero and 0 < self.interval_s <= time.monotonic() - self.saved_at:
            compressed(trainer).cohort.world.asks |= SAVE

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        strategy = compressed(trainer)
        asks = int(np.bitwise_or.reduce(strategy.last_report.asks))  # of any process
        if trainer.global_step >= trainer.estimated_stepping_batches:
            trainer._signal_connector.received_sigterm = False
            return
        self.evaluates = strategy.gauged
        if self.evaluates:
            self.report = torch.from_numpy(strategy.last_report.pack())
            self.loops = copy.deepcopy(trainer._checkpoint_connector._get_loops_state_dict())
        if asks & END:
            self._end(trainer)
        if asks & SAVE and not self.evaluates:
            self._save(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        world = compressed(trainer).cohort.world
        if self.evaluates and world.agreed(world.asks & END):
            self._end(trainer, loops=self.loops)  # as after the round

    def on_validation_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self.evaluates, self.report = False, None
        due = time.monotonic() - self.saved_at >= self.interval_s
        # All ranks save together or not at all. The last evaluation completes the run.
        if trainer.strategy.broadcast(due) and trainer.global_step < trainer.estimated_stepping_batches:
            self._save(trainer)

    def _end(self, trainer: Trainer, **parts: Any) -> None:
        self._save(trainer, **parts)
        strategy = compressed(trainer)
        raise Preempted(strategy.ledger.rounds, next(iter(strategy.received), 0))

    def _save(self, trainer: Trainer, **parts: Any) -> None:
        """Save the run; `parts` replace those of the checkpoint."""
        strategy = compressed(trainer)
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(False) | parts
        strategy.add_cohort(checkpoint)
        if trainer.is_global_zero:
            with going_on("checkpoint"), replacing(self.path) as partial:
                _write(checkpoint, partial)
        strategy.barrier()
        strategy.cohort.world.asks &= ~SAVE
        self.saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"evaluates": self.evaluates, "report": self.report, "loops": self.loops if self.evaluates else {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)


def _write(checkpoint: dict[str, Any], file: Path) -> None:
    """Write a checkpoint to a file.

    Raises:
        OSError: the disk is full, for example, which torch would tell as an error of its own.
    """
    with file.open("wb") as opened:
        try:
            torch.save(checkpoint, opened)
        except RuntimeError as error:
            if isinstance(cause := error.__context__, OSError):
                raise cause from None
            raise
