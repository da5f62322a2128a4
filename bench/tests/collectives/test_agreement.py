"""Processes that differ are rejected, in one line that names the rank and the difference, before any of them waits."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch import nn

from bench.errors import InputError, WorkerLostError
from bench.laws.toys import Toy
from bench.laws.worlds import Hang, M, run_processes
from bench.strategies.processes import CompressedDDPStrategy
from bench.tests.found import RECIPES


class AtRank(Callback):
    """Calls `change` in the process of one rank: before a given round, or at set-up if none is given."""

    def __init__(self, rank: int, change: Callable[[Trainer, Any], None], round: int | None = None) -> None:
        self.rank = rank
        self.change = change
        self.round = round

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if self.round is None and trainer.global_rank == self.rank:
            self.change(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.round and trainer.global_rank == self.rank:
            self.change(trainer, pl_module)


def wider(trainer: Trainer, module: Any) -> None:
    module.network[2] = nn.Linear(16, 4)


def frozen(trainer: Trainer, module: Any) -> None:
    module.network[0].bias.requires_grad_(False)


def another_seed(trainer: Trainer, module: Any) -> None:
    assert isinstance(trainer.strategy, CompressedDDPStrategy)
    trainer.strategy.seed = 8


def another_recipe(trainer: Trainer, module: Any) -> None:
    assert isinstance(trainer.strategy, CompressedDDPStrategy)
    trainer.strategy.algorithm = RECIPES["sparse"]


def another_collective(trainer: Trainer, module: Any) -> None:
    assert isinstance(trainer.strategy, CompressedDDPStrategy)
    trainer.strategy.collective = "sharded"


def fewer(trainer: Trainer, module: Any) -> None:
    trainer.limit_train_batches = 5


def by_hand(trainer: Trainer, module: Any) -> None:
    module.automatic_optimization = False


def slower(trainer: Trainer, module: Any) -> None:
    trainer.optimizers[0].param_groups[0]["lr"] = 0.01


@pytest.mark.parametrize(
    ("change", "round", "told"),
    [
        (wider, None, r"parameter network\.2\.weight: rank 1 has \(4, 16\) float32; rank 0 has \(3, 16\) float32"),
        (frozen, None, r"parameter network\.0\.bias: rank 1 has \(16,\) float32 fixed; rank 0 has \(16,\) float32"),
        (another_seed, None, "seed: rank 1 has 8; rank 0 has 0"),
        (another_recipe, None, "algorithm: rank 1 has Algorithm.name='sparse'"),
        (another_collective, None, "collective: rank 1 has sharded; rank 0 has auto"),
        (fewer, None, "batches an epoch: rank 1 has 5; rank 0 has 40"),
        (by_hand, None, "automatic_optimization: False"),
        (slower, 4, "round 4: lr: worker 1 has 0.01; worker 0 has 0.05"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_they_are_told(change: Callable[..., None], round: int | None, told: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Exception, match=told) as raised:
        run_processes(tmp_path, RECIPES["sgd"], Toy, callbacks=[AtRank(1, change, round)])
    assert InputError.__name__ in str(raised.value)
    assert time.monotonic() - started < 60, "nobody waits for the timeout"


class Gathering(Hang):
    """Worker 2 hangs while the others take part in a collective operation outside a round."""

    def __init__(self, what: Callable[[Any], None]) -> None:
        self.what = what

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if batch_idx == 5:
            self.what(trainer.strategy)


@pytest.mark.filterwarnings("ignore:.*all_gather is deprecated")  # Lightning calls it
@pytest.mark.parametrize(
    "what",
    [
        lambda strategy: strategy.barrier(),
        lambda strategy: strategy.broadcast(torch.zeros(3)),
        lambda strategy: strategy.reduce(torch.zeros(3)),
        lambda strategy: strategy.all_gather(torch.zeros(3)),
        lambda strategy: strategy.world.gather(3),
    ],
    ids=["barrier", "broadcast", "reduce", "all_gather", "gather"],
)
def test_a_lost_worker_is_told_outside_a_round(what: Callable[[Any], None], tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"worker [01] lost worker 2 \(timeout 2 s\)") as raised:
        run_processes(tmp_path, RECIPES["sgd"], callbacks=[Gathering(what)], timeout=timedelta(seconds=2))
    assert WorkerLostError.__name__ in str(raised.value)
    assert M == 3
