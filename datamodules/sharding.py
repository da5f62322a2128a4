"""Determines which samples each worker sees in each round, and the data module that deals them out."""

from collections.abc import Iterator, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bench.errors import InputError
from bench.gradients.batches import Dealt, Served
from bench.kernels.noise import Noise
from bench.strategies.processes import CompressedDDPStrategy
from bench.strategies.simulated import CompressedStrategy
from bench.suite.datamodules.splits import IID, Split


class RoundSampler(Sampler[Tensor]):
    """Yields sample indices (L, B) for the local workers, one round at a time, according to a split.

    An epoch has ⌊N/(M·B)⌋ rounds for every split: a worker with fewer samples than these rounds need repeats its own; a
    worker with more leaves some out until another epoch. A shard depends only on (seed, epoch, rank).

    Args:
        labels: (N,) of the training samples, or other classes that the split distinguishes.
        split: determines which worker holds which samples.
        num_workers: M.
        local_ranks: the L workers of this process.
        batch_size: B, of one worker.
        seed: of the split, and of the noise.

    Raises:
        InputError: there are more workers than samples, a batch is larger than a worker's share, or the split is
            impossible.
    """

    def __init__(
        self,
        labels: np.ndarray,
        split: Split,
        num_workers: int,
        local_ranks: Sequence[int],
        batch_size: int,
        seed: int,
    ) -> None:
        num_samples = len(labels)
        if num_workers > num_samples:
            raise InputError(f"workers: {num_workers}; at most {num_samples} are allowed, one per training sample")
        share = num_samples // num_workers
        if not 1 <= batch_size <= share:
            raise InputError(f"batch_size: {batch_size}; 1 to {share} is allowed, the size of a worker's shard")
        self.labels = labels
        self.split = split
        self.num_workers = num_workers
        self.local_ranks = list(local_ranks)
        self.batch_size = batch_size
        self.seed = seed
        self.num_rounds = share // batch_size
        self.epoch = 0
        self.rounds_done = 0  # of this epoch
        self.done_before: dict[str, int] = {}  # from a checkpoint: its epoch, and how many rounds of it were done
        self.deal()  # raises at once if the split is impossible

    def deal(self) -> list[np.ndarray]:
        """For each of the M workers, the sample indices that it holds in this epoch, in its order."""
        return self.split.deal(self.labels, self.num_workers, self.seed, self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def noise(self) -> list[Noise]:
        """The local workers' sources of random numbers in the round yielded last."""
        round = self.epoch * self.num_rounds + self.rounds_done - 1
        return [Noise(self.seed, round, rank) for rank in self.local_ranks]

    def shards(self) -> Tensor:
        """(L, T·B): sample indices of the local workers in the T rounds of this epoch."""
        everyone, size = self.deal(), self.num_rounds * self.batch_size
        return torch.from_numpy(np.stack([np.resize(everyone[rank], size) for rank in self.local_ranks]))

    def __len__(self) -> int:
        return self.num_rounds

    def __iter__(self) -> Iterator[Tensor]:
        rounds = self.shards().split(self.batch_size, dim=1)
        before, self.done_before = self.done_before, {}
        first = before["rounds_done"] % len(self) if before.get("epoch") == self.epoch else 0
        for done, indices in enumerate(rounds[first:], start=first + 1):
            self.rounds_done = done
            yield indices


class RoundLoader(DataLoader):
    """A loader of dealt batches that tracks its position in the epoch, so that Lightning can resume in mid-epoch."""

    def __init__(self, dataset: Dataset, sampler: RoundSampler) -> None:
        super().__init__(dataset, batch_size=None, sampler=sampler, collate_fn=Dealt)
        self.rounds = sampler

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.rounds.epoch, "rounds_done": self.rounds.rounds_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds.done_before = state

    def whole_epoch(self) -> Iterator[Dealt]:
        """All batches of this epoch, from its beginning, without moving the position of training."""
        for indices in self.rounds.shards().split(self.rounds.batch_size, dim=1):
            yield Dealt(self.dataset[indices])


class ShardedData(lightning.LightningDataModule):
    """Data held as tensors on the device, divided among the workers of a compressed strategy and batched there.

    Args:
        batch_size: of one worker.
        seed: of the split.
        split: determines which worker holds which samples; None takes IID.
        eval_batch_size: samples in one forward pass of an evaluation.
    """

    def __init__(
        self, batch_size: int = 10, seed: int = 0, split: Split | None = None, eval_batch_size: int = 2500
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.split = split or IID()
        self.eval_batch_size = eval_batch_size

    @property
    def strategy(self) -> CompressedStrategy | CompressedDDPStrategy:
        assert self.trainer is not None
        strategy = self.trainer.strategy
        assert isinstance(strategy, CompressedStrategy | CompressedDDPStrategy)
        return strategy

    def deal(self, train: Dataset, test: Dataset, kinds: np.ndarray, test_kinds: np.ndarray) -> None:
        """Set the data, which are indexed by tensors. `kinds`, `test_kinds`: (N,) the classes that the split sees."""
        self.train, self.test, self.test_kinds, world = train, test, test_kinds, self.strategy.world
        self.sampler = RoundSampler(kinds, self.split, world.size, world.local_ranks, self.batch_size, self.seed)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader(self.train, self.sampler)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(ServedSet(self), batch_size=None, collate_fn=Served._make)


class ServedSet(Dataset):
    """Batches of a data module's test samples, each with the ranks whose batch-norm statistics evaluate it."""

    def __init__(self, data: ShardedData) -> None:
        self.test = data.test
        self.batches = [
            (chunk, ranks)
            for samples, ranks in data.split.served(data.test_kinds)
            for chunk in torch.from_numpy(samples).split(data.eval_batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Any, slice]:
        chunk, ranks = self.batches[index]
        return self.test[chunk], ranks
