"""The checkpoint from which an interrupted run resumes."""

import time
from datetime import timedelta
from pathlib import Path

import lightning
from lightning import Callback, Trainer

from bench.runs.results import going_on


class Autosave(Callback):
    """Saves the whole run after an evaluation, at least `interval` apart, so that a killed run loses little.

    Args:
        path: the checkpoint, replaced each time.
        interval: the least time between two.
    """

    def __init__(self, path: Path, interval: timedelta) -> None:
        self.path = path
        self.interval_s = interval.total_seconds()

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self.saved_at = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        due = time.monotonic() - self.saved_at >= self.interval_s
        # All ranks save together or not at all.
        if trainer.strategy.broadcast(due):
            partial = self.path.with_suffix(".partial")
            with going_on("checkpoint"):
                try:
                    trainer.save_checkpoint(partial)
                except OSError:
                    partial.unlink(missing_ok=True)
                    trainer.strategy.barrier()  # the others wait at this one
                    raise
                if trainer.is_global_zero:
                    partial.replace(self.path)
            self.saved_at = time.monotonic()
