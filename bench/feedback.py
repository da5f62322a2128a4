"""What a worker does between its gradient and the compressor, and what it keeps for the next round.

Holds no state itself; works in place on the vector it keeps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from bench.errors import InputError
from bench.message import Message


class Feedback(ABC):
    """compensate before compression, settle after it."""

    keeps_vector: bool = False
    """Whether a worker keeps a vector (d,); then the vector to compress is built in its place."""

    keeps_error: bool = False
    """Whether that vector holds what a lossy compressor left out."""

    @abstractmethod
    def compensate(self, update: Tensor, kept: Tensor | None) -> Tensor:
        """What the compressor sees, (R, d). `update`: gradients, times γ where the recipe sends updates."""

    def settle(self, compensated: Tensor, sent: Message) -> None:  # noqa: B027  what keeps no error has nothing to do
        """Turn the vector that was compressed into the next one to keep, in place."""


@dataclass(frozen=True)
class NoFeedback(Feedback):
    """What is not sent is lost."""

    def compensate(self, update: Tensor, kept: Tensor | None) -> Tensor:
        return update


@dataclass(frozen=True)
class ErrorFeedback(Feedback):
    """u = γg + e; send C(u); e ← u − C(u) (Stich, Cordonnier, Jaggi 2018, Algorithm 1)."""

    keeps_vector = keeps_error = True

    def compensate(self, update: Tensor, kept: Tensor | None) -> Tensor:
        assert kept is not None
        return kept.add_(update)

    def settle(self, compensated: Tensor, sent: Message) -> None:
        sent.subtract_from(compensated)


@dataclass(frozen=True)
class Accumulate(Feedback):
    """a ← ρa + g; send C(a); a ← 0 where something was sent (Park, Lee: Sparse-SignSGD, arXiv 2302.07475).

    Args:
        decay: ρ, in [0, 1]. 1 accumulates until an entry is sent; 0 remembers nothing.
    """

    decay: float = 1.0
    keeps_vector = keeps_error = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise InputError(f"decay: {self.decay}; a number in [0, 1] is needed")

    def compensate(self, update: Tensor, kept: Tensor | None) -> Tensor:
        assert kept is not None
        return (kept if self.decay == 1 else kept.mul_(self.decay)).add_(update)

    def settle(self, compensated: Tensor, sent: Message) -> None:
        sent.clear_in(compensated)


@dataclass(frozen=True)
class Momentum(Feedback):
    """v ← βv + (1 − β)g; send C(v) (Bernstein et al. 2018, Algorithm 2: Signum).

    Args:
        beta: β, in [0, 1). 0 has no momentum.
    """

    beta: float = 0.9
    keeps_vector = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise InputError(f"beta: {self.beta}; a number in [0, 1) is needed")

    def compensate(self, update: Tensor, kept: Tensor | None) -> Tensor:
        assert kept is not None
        return kept.lerp_(update, 1 - self.beta)
