"""Which samples each worker sees in each round."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bench.batches import Dealt
from bench.errors import InputError


class IIDSampler(Sampler[Tensor]):
    """Deals a fresh random permutation of the samples to M workers every epoch, in equal disjoint shards.

    A shard depends only on (seed, epoch, rank). Yields sample indices (L, B) for the local workers, a round at a time.

    Args:
        num_samples: N, of which each worker gets ⌊N/M⌋.
        num_workers: M.
        local_ranks: the L workers of this process.
        batch_size: B, of one worker.
        seed: of the permutations.

    Raises:
        InputError: more workers than samples, or a batch larger than a shard.
    """

    def __init__(
        self, num_samples: int, num_workers: int, local_ranks: Sequence[int], batch_size: int, seed: int
    ) -> None:
        if num_workers > num_samples:
            raise InputError(f"workers: {num_workers}; at most {num_samples} are allowed, one a training sample")
        self.shard_size = num_samples // num_workers
        if not 1 <= batch_size <= self.shard_size:
            raise InputError(
                f"batch_size: {batch_size}; 1 to {self.shard_size} is allowed, the size of a worker's shard"
            )
        self.num_samples = num_samples
        self.num_workers = num_workers
        self.local_ranks = list(local_ranks)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.rounds_done = 0  # of this epoch
        self.skip = 0  # rounds that the epoch of a checkpoint had done already

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def shards(self) -> Tensor:
        """(L, ⌊N/M⌋): the sample indices of the local workers in this epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.num_samples, generator=generator)
        return order[: self.num_workers * self.shard_size].view(self.num_workers, -1)[self.local_ranks]

    def __len__(self) -> int:
        return self.shard_size // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        rounds = self.shards().split(self.batch_size, dim=1)[: len(self)]
        first, self.skip = self.skip % len(self), 0
        for done, indices in enumerate(rounds[first:], start=first + 1):
            self.rounds_done = done
            yield indices


class RoundLoader(DataLoader):
    """A loader of dealt batches that knows where in the epoch it is, so that Lightning can resume inside one."""

    def __init__(self, dataset: Dataset, sampler: IIDSampler) -> None:
        super().__init__(dataset, batch_size=None, sampler=sampler, collate_fn=Dealt)
        self.rounds = sampler

    def state_dict(self) -> dict[str, Any]:
        return {"rounds_done": self.rounds.rounds_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds.skip = state["rounds_done"]
