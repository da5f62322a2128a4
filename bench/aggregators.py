"""How the server turns M messages into one vector. Rows come in rank order, so every process gets the same bits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.compressors import Compressor, Identity, Sign, Ternary
from bench.compressors.sign import random_zeros
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.message import Message

Ties = Literal["zero", "plus", "random"]


class Aggregator(ABC):
    """What the server makes of M messages."""

    entrywise: bool = False
    """Whether what becomes of an entry depends on no other."""

    def weight(self, num_workers: int) -> float:
        """What one worker's message counts for in the aggregate."""
        return 1.0

    @property
    def downlink(self) -> Compressor:
        """A code that carries every aggregate without loss."""
        return Identity()

    @abstractmethod
    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        """M messages, each times its weight (M,) if given -> (d,). `noise`: the server's."""


@dataclass(frozen=True)
class Sum(Aggregator):
    """Σ_m S_m, as the SASG experiments have it: its γ is a Mth of a mean's, their 0.005 is 0.05 at M = 10."""

    entrywise = True

    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        return messages.sum(weights)


@dataclass(frozen=True)
class Mean(Aggregator):
    """(1/M) Σ_m S_m, as DDP has it: γ and clipping mean what they do for one worker with the joint batch."""

    entrywise = True

    def weight(self, num_workers: int) -> float:
        return 1 / num_workers

    def aggregate(self, messages: Message, weights: Tensor | None, noise: Noise) -> Tensor:
        return messages.sum(weights).div_(messages.num_rows)


@dataclass(frozen=True)
class MajorityVote(Aggregator):
    """sign(Σ_m S_m), of signs one vote a worker and entry (Bernstein, Zhao, Azizzadenesheli, Anandkumar, ICLR 2019).

    Of other messages it is the sign of their sum, in which the longest counts most.

    Args:
        ties: what an entry without a majority becomes: "zero", "plus" one (what bit packing gives; the authors'
            code), or a "random" sign. Only zero needs a third value, and so a ternary broadcast.
    """

    entrywise = True

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
            votes = torch.copysign(total.new_ones(()), total.add_(0), out=total)  # −0 + 0 = 0, which is plus
        elif self.ties == "random":
            votes = random_zeros(total, noise).sign_()
        else:
            votes = total.sign_()
        return votes if finite else votes.fill_(torch.nan)  # an overflow, which a sign would hide
