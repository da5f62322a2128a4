"""What a worker does with the part of its gradient that was not sent. Holds no state; works in place on its error."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from bench.message import Message


class Feedback(ABC):
    """compensate before compression, settle after it."""

    keeps_error: bool = False
    """Whether a worker has an error (d,); then the vector to compress is built in its place."""

    @abstractmethod
    def compensate(self, update: Tensor, error: Tensor | None) -> Tensor:
        """What the compressor sees, (R, d). `update`: gradients, times γ where the recipe sends updates."""

    @abstractmethod
    def settle(self, compensated: Tensor, sent: Message) -> None:
        """Turn the vector that was compressed into the next error, in place."""


@dataclass(frozen=True)
class NoFeedback(Feedback):
    """What is not sent is lost."""

    def compensate(self, update: Tensor, error: Tensor | None) -> Tensor:
        return update

    def settle(self, compensated: Tensor, sent: Message) -> None: ...


@dataclass(frozen=True)
class ErrorFeedback(Feedback):
    """u = γg + e; send C(u); e ← u − C(u) (Stich, Cordonnier, Jaggi 2018, Algorithm 1)."""

    keeps_error = True

    def compensate(self, update: Tensor, error: Tensor | None) -> Tensor:
        assert error is not None
        return error.add_(update)

    def settle(self, compensated: Tensor, sent: Message) -> None:
        sent.subtract_from(compensated)
