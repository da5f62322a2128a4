"""Toy runs in real processes, and the final state of each process."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from filelock import FileLock
from lightning import Callback, Trainer

from bench.algorithm import Algorithm
from bench.laws.toys import QUIET, Toy, flat, loader, toy_data
from bench.strategies.processes import CompressedDDPStrategy
from bench.suite.scripts.bare import forked

M = 3


def forked_once(factory: pytest.TempPathFactory, name: str, size: int, work: Callable[[int, Path], None]) -> Path:
    """The folder to which `work(rank, folder)` wrote in each of so many processes, for all test processes together."""
    folder = factory.getbasetemp().parent / name if "PYTEST_XDIST_WORKER" in os.environ else factory.mktemp(name)
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            forked(size, work, folder)
            (folder / "done").touch()
    return folder


class Ending(Callback):
    """Writes the final state of a process to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def teardown(self, trainer: Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        strategy = trainer.strategy
        assert isinstance(strategy, CompressedDDPStrategy)
        state = {
            "weights": flat(pl_module),
            "ledger": strategy.ledger.state_dict(),
            "report": torch.from_numpy(strategy.last_report.pack()),
            "buffers": dict(pl_module.named_buffers()),
            "frozen": pl_module.get_submodule("network.0").bias,
        }
        torch.save(state, self.folder / f"{strategy.global_rank}.pt")


def run_processes(
    folder: Path,
    algorithm: Algorithm,
    module: Callable[[], lightning.LightningModule] = Toy,
    callbacks: list[Callback] | None = None,
    rounds: int = 30,
    checkpoint: Path | None = None,
    trainer_options: dict[str, Any] | None = None,
    **strategy_options: Any,
) -> list[dict[str, Any]]:
    """Train with M gloo processes and return the final state of each."""

    class Data(lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            assert self.trainer is not None
            return loader(toy_data(), M, [self.trainer.global_rank])

    lightning.seed_everything(3, verbose=False)
    model = module()
    strategy = CompressedDDPStrategy(algorithm, start_method="fork", **strategy_options)
    trainer = Trainer(strategy=strategy, devices=M, callbacks=[Ending(folder), *(callbacks or [])],
                      **{**QUIET, "max_steps": rounds, **(trainer_options or {})})  # fmt: skip
    trainer.fit(model, datamodule=Data(), ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return [torch.load(folder / f"{rank}.pt") for rank in range(M)]


class Hang(Callback):
    """Worker 2 stops answering in round 5."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 5 and trainer.global_rank == 2:
            time.sleep(60)
