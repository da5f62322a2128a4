"""Bare training, shared by the scripts that measure."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from lightning import Callback, LightningDataModule, Trainer

import bench


def keep_quiet() -> None:
    """Use one thread, and silence Lightning, so that only the script's own output is printed."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def fit(
    strategy: bench.CompressedStrategy,
    module: lightning.LightningModule,
    data: LightningDataModule,
    num_rounds: int,
    callbacks: Sequence[Callback] = (),
    accelerator: str = "cpu",
    precision: Any = "32-true",
) -> None:
    """Train for `num_rounds` rounds without logging, checkpoints, progress bars or evaluation."""
    Trainer(
        strategy=strategy,
        accelerator=accelerator,
        precision=precision,
        max_steps=num_rounds,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    ).fit(module, datamodule=data)
