"""A progress bar for a whole run."""

import os
import sys
from typing import Any

import lightning
from lightning import Callback, Trainer
from tqdm.auto import tqdm

from bench.runs.claim import Claim
from bench.runs.columns import METRICS


class Progress(Callback):
    """One bar for the run: rounds done, and the last evaluation. Hidden unless on a terminal.

    Args:
        told: what the run is called.
        claim: on the run, which tells others how far it is; None where there is none.
    """

    EVERY = 20  # rounds between two updates of the bar

    def __init__(self, told: str, claim: Claim | None = None) -> None:
        self.told = told
        self.claim = claim

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        hidden = None if trainer.is_global_zero else True  # None: hidden unless on a terminal
        line = int(os.environ.get("TQDM_POSITION", "0"))  # which tqdm looks for once, when it is imported
        self.bar = tqdm(
            desc=self.told, total=int(trainer.estimated_stepping_batches), unit="round", initial=trainer.global_step,
            disable=hidden, leave=False, dynamic_ncols=True, position=line,
            file=sys.__stdout__,  # a matrix silences all else
        )  # fmt: skip

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.claim:
            self.claim.progress(trainer.global_step, int(trainer.estimated_stepping_batches))
        if trainer.global_step % self.EVERY == 0:
            self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        found = {name: f"{trainer.callback_metrics[name]:.4g}" for name in METRICS if name in trainer.callback_metrics}
        self.bar.set_postfix(found, refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self.bar.update(trainer.global_step - self.bar.n)
        self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
