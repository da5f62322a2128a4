"""Toy runs that are killed and resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning import Callback, Trainer

from bench.laws.toys import QUIET, Toy, counted, flat, shortened, toy_data
from bench.strategies.simulated import CompressedStrategy
from bench.suite.datamodules.sharding import RoundLoader, RoundSampler
from bench.suite.datamodules.splits import IID


class Killed(Exception):
    """Simulates a power cut right after a checkpoint."""


class SaveAndDie(Callback):
    def __init__(self, path: Path, after: int) -> None:
        self.path = path
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.after:
            trainer.save_checkpoint(self.path)
            raise Killed


class RoundData(lightning.LightningDataModule):
    """Toy data served by the suite's own loader."""

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader(_Indexed(), RoundSampler(np.zeros(480), IID(), 4, range(4), 4, seed=1))


class _Indexed(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.tensors = toy_data().tensors

    def __getitem__(self, indices: torch.Tensor) -> Any:
        return tuple(t[indices] for t in self.tensors)


def fit(algorithm: Any, data: Any, callbacks: list[Callback], checkpoint: Path | None = None, **options: Any) -> Any:
    """Train four simulated workers; return the weights and the ledger."""
    lightning.seed_everything(3, verbose=False)
    module, estimator = options.pop("module", Toy)(), options.pop("estimator", None)
    strategy = CompressedStrategy(shortened(algorithm), workers=4, estimator=estimator)
    trainer = Trainer(strategy=strategy, callbacks=callbacks, **{**QUIET, **options})
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return flat(module), counted(strategy.ledger.state_dict())


def assert_goes_on(algorithm: Any, after: Sequence[int], path: Path, **options: Any) -> None:
    """Check that a run that is killed and resumed ends exactly as one that was never killed.

    Args:
        algorithm: the recipe.
        after: numbers of rounds after which a run is killed, each in a run of its own.
        path: of the checkpoint.
        options: of `fit`.
    """
    weights, ledger = fit(algorithm, RoundData(), [], **options)
    for num_rounds in after:
        with pytest.raises(Killed):
            fit(algorithm, RoundData(), [SaveAndDie(path, num_rounds)], **options)
        resumed_weights, resumed_ledger = fit(algorithm, RoundData(), [], path, **options)
        assert torch.equal(resumed_weights, weights)
        assert resumed_ledger == ledger
