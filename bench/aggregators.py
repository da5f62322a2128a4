"""How the server turns M messages into one vector.

Rows are in rank order, so that every process computes bitwise the same result.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.compressors import Compressor, Identity, Sign, Ternary
from bench.compressors.sign import random_zeros
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.chunked import ChunkedMessage
from bench.wire.message import Message

Ties = Literal["zero", "plus", "random"]


class Aggregator(ABC):
    """Combines M messages into one vector."""

    entrywise: bool = False
    """Whether what becomes of an entry depends on no other."""

    sums: bool = False
    """Whether it needs the messages' sum alone."""

    def weight(self, num_workers: int) -> float:
        """Return the factor with which one worker's message enters the aggregate."""
        return 1.0

    @property
    def downlink(self) -> Compressor:
        """A compressor that broadcasts every aggregate without loss."""
        return Identity()

    @abstractmethod
    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        """Aggregate M messages, each times its weight (M,) if given -> (d,). `noise`: the server's random numbers."""


@dataclass(frozen=True)
class Sum(Aggregator):
    """Σ_m S_m, as in the SASG experiments. γ of a sum is 1/M of a mean's: their 0.005 equals 0.05 at M = 10."""

    entrywise = sums = True

    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        return messages.sum(weights)


@dataclass(frozen=True)
class Mean(Aggregator):
    """(1/M) Σ_m S_m, as in DDP. γ and clipping values act as for one worker with the joint batch."""

    entrywise = sums = True

    def weight(self, num_workers: int) -> float:
        return 1 / num_workers

    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        return messages.sum(weights).div_(messages.num_rows)


@dataclass(frozen=True)
class SignOfMean(Aggregator):
    """sign(mean), where a coefficient's mean is over those workers that sent it (DeMo's code; Peng et al. 2024)."""

    @property
    def downlink(self) -> Compressor:
        return Ternary()

    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        assert isinstance(messages, ChunkedMessage), "others are refused"
        mean = messages.mean_of_senders()
        return mean.sign_() if mean.sum().isfinite() else mean.fill_(torch.nan)  # sign() would hide an overflow


@dataclass(frozen=True)
class MajorityVote(Aggregator):
    """sign(Σ_m S_m): majority vote (Bernstein, Zhao, Azizzadenesheli, Anandkumar, ICLR 2019).

    With sign messages each worker has one vote per entry. With other messages this is the sign of their sum, which
    the message of largest norm dominates.

    Args:
        ties: what an entry without a majority becomes: "zero", "plus" (+1, as bit packing gives it; the authors' code)
            or "random" (a random sign). Only "zero" needs a third value, hence a ternary broadcast.
    """

    entrywise = sums = True

    ties: Ties = "plus"

    def __post_init__(self) -> None:
        if self.ties not in get_args(Ties):
            raise InputError(f"ties: {self.ties!r}; one of {', '.join(get_args(Ties))} is needed")

    @property
    def downlink(self) -> Compressor:
        return Ternary() if self.ties == "zero" else Sign()

    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        total = messages.sum(weights)
        finite = total.sum().isfinite() or total.isfinite().all()
        if self.ties == "plus":
            votes = torch.copysign(total.new_ones(()), total.add_(0), out=total)  # −0 + 0 = +0, which becomes +1
        elif self.ties == "random":
            votes = random_zeros(total, noise).sign_()
        else:
            votes = total.sign_()
        return votes if finite else votes.fill_(torch.nan)  # sign() would hide an overflow
