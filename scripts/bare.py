"""Training without logs, checkpoints or evaluation, shared by the scripts that measure."""

import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
import torch.multiprocessing
from lightning import Callback, LightningDataModule, Trainer

import bench


def keep_quiet() -> None:
    """Use one thread, and silence Lightning, so that only the script's own output is printed."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


BARE: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "limit_val_batches": 0,
}
"""Options of a Trainer without logs, checkpoints, progress bars or evaluation."""


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
        **BARE,
    ).fit(module, datamodule=data)


def forked(num_workers: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(rank, *arguments)` in `num_workers` forked processes, whose environment lets Trainers connect."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(  # pyright: ignore[reportPrivateImportUsage]
        _work, (port, work, arguments), num_workers, start_method="fork"
    )


def _work(rank: int, port: int, work: Callable[..., None], arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work(rank, *arguments)


def timed_ms(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)
