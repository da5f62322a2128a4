"""Random numbers that are the same in every world: seeded by their purpose, never drawn from a shared stream."""

from typing import Literal, NamedTuple

import numpy as np
import torch

Purpose = Literal["step", "compression", "attack", "augmentation", "mask"]
_STREAMS: dict[Purpose, tuple[int, ...]] = {
    "step": (),
    "compression": (1,),
    "attack": (2,),
    "augmentation": (3,),
    "mask": (4,),
}


class Noise(NamedTuple):
    """The seed of a worker's random numbers in a round. The server draws as rank M.

    `part`: the index of the batch among those whose gradients are accumulated for the round. `start`: the position in
    the vector of the first entry that is drawn for.
    """

    seed: int
    round: int
    rank: int
    part: int = 0
    start: int = 0

    def generator(self, purpose: Purpose, device: torch.device) -> torch.Generator:
        """Return a new generator for one purpose, independent of those for other purposes."""
        return torch.Generator(device).manual_seed(self.entropy(purpose))

    def entropy(self, purpose: Purpose) -> int:
        """Return the seed of that generator."""
        return self.key(purpose)[0]

    def key(self, purpose: Purpose) -> tuple[int, int]:
        """Return two numbers below 2³², the key of `bench.kernels.draws`, for use where a generator is too slow."""
        origin = self[:4] if self.part else self[:3]
        low, high = np.random.SeedSequence(origin, spawn_key=_STREAMS[purpose]).generate_state(2).tolist()
        return low, high
