"""Byzantine workers: some of the M send something other than what they computed.

They keep the recipe's form, since the server would notice any other: what travels is what the compressor makes of a
corrupted vector, and it is counted like any message. Their own state goes on as if they had been honest.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import InputError
from bench.kernels.noise import Noise


@dataclass(frozen=True)
class Adversary(ABC):
    """
    Args:
        num_byzantine: f, the last of the M workers.
    """

    num_byzantine: int

    def refuse(self, num_workers: int) -> None:
        """Raise InputError where nobody would be left who is honest."""
        if not 0 <= self.num_byzantine < num_workers:
            raise InputError(
                f"num_byzantine: {self.num_byzantine}; 0 to {num_workers - 1} is allowed with {num_workers} workers"
            )

    def controls(self, rank: int, num_workers: int) -> bool:
        """Whether this worker is Byzantine."""
        return rank >= num_workers - self.num_byzantine

    @abstractmethod
    def corrupt(self, message: Tensor, noise: Noise) -> Tensor:
        """What an honest message stands for, (1, d) -> what is sent in its place, (1, d)."""


@dataclass(frozen=True)
class Scale(Adversary):
    """Sends a multiple of the honest message.

    Args:
        factor: −1 inverts; a large negative one drags a mean uphill.
    """

    factor: float = -1.0

    def corrupt(self, message: Tensor, noise: Noise) -> Tensor:
        return message * self.factor


@dataclass(frozen=True)
class Random(Adversary):
    """Sends what the compressor makes of normal noise, which before compression is as long as the honest message."""

    def corrupt(self, message: Tensor, noise: Noise) -> Tensor:
        generator = noise.generator("attack", message.device)
        drawn = torch.randn(message.shape, generator=generator, dtype=message.dtype, device=message.device)
        return drawn * (message.norm() / drawn.norm())
