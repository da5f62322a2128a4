"""Random numbers that are the same in every world: seeded by what they are for, never drawn from a shared stream."""

from typing import Literal, NamedTuple

import numpy as np
import torch

Purpose = Literal["step", "compression", "attack", "augmentation"]
_STREAMS: dict[Purpose, tuple[int, ...]] = {"step": (), "compression": (1,), "attack": (2,), "augmentation": (3,)}


class Noise(NamedTuple):
    """Where the random numbers of a worker in a round come from. The server draws as rank M.

    `part`: which of the batches whose gradients are accumulated for the round. `start`: where in the vector the entries
    begin that are drawn for, as numbers go by positions.
    """

    seed: int
    round: int
    rank: int
    part: int = 0
    start: int = 0

    def generator(self, purpose: Purpose, device: torch.device) -> torch.Generator:
        """A fresh generator for one purpose, independent of those for others."""
        return torch.Generator(device).manual_seed(self.entropy(purpose))

    def entropy(self, purpose: Purpose) -> int:
        """The seed of such a generator."""
        return self.key(purpose)[0]

    def key(self, purpose: Purpose) -> tuple[int, int]:
        """Two numbers below 2³², where a generator is too slow: the key of `bench.kernels.draws`."""
        origin = self[:4] if self.part else self[:3]
        low, high = np.random.SeedSequence(origin, spawn_key=_STREAMS[purpose]).generate_state(2).tolist()
        return low, high
