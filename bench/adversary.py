"""Byzantine workers: some of the M workers send a message other than the one they computed.

A Byzantine worker corrupts a vector and compresses it as the recipe does, because the server would notice a message in
any other form. The result is counted like any message. The worker's own state evolves as if it had been honest.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import InputError
from bench.kernels.noise import Noise


@dataclass(frozen=True)
class Adversary(ABC):
    """What Byzantine workers send instead of their honest messages.

    Args:
        num_byzantine: f. The last f of the M workers are Byzantine.
    """

    num_byzantine: int

    def refuse(self, num_workers: int) -> None:
        """Raise InputError unless at least one of the workers is honest."""
        if not 0 <= self.num_byzantine < num_workers:
            raise InputError(
                f"num_byzantine: {self.num_byzantine}; 0 to {num_workers - 1} is allowed with {num_workers} workers"
            )

    def controls(self, rank: int, num_workers: int) -> bool:
        """Return whether the worker of this rank is Byzantine."""
        return rank >= num_workers - self.num_byzantine

    @abstractmethod
    def corrupt(self, message: Tensor, noise: Noise) -> Tensor:
        """Turn the honest vector (1, d) into the vector (1, d) that is compressed and sent in its place."""


@dataclass(frozen=True)
class Scale(Adversary):
    """Sends a multiple of the honest message.

    Args:
        factor: −1 inverts the message; a large negative factor makes the mean ascend the loss.
    """

    factor: float = -1.0

    def corrupt(self, message: Tensor, noise: Noise) -> Tensor:
        return message * self.factor


@dataclass(frozen=True)
class Random(Adversary):
    """Sends compressed Gaussian noise, scaled before compression to the L2 norm of the honest message."""

    def corrupt(self, message: Tensor, noise: Noise) -> Tensor:
        generator = noise.generator("attack", message.device)
        drawn = torch.randn(message.shape, generator=generator, dtype=message.dtype, device=message.device)
        return drawn * (message.norm() / drawn.norm())
