"""How the server turns M messages into one vector. Rows come in rank order, so every process gets the same bits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from bench.message import Message


class Aggregator(ABC):
    """What the server makes of M messages."""

    def weight(self, num_workers: int) -> float:
        """What one worker's message counts for in the aggregate."""
        return 1.0

    @abstractmethod
    def aggregate(self, messages: Message, weights: Tensor | None = None) -> Tensor:
        """M messages, each times its weight (M,) if given -> (d,)."""


@dataclass(frozen=True)
class Sum(Aggregator):
    """Σ_m S_m, as the SASG experiments have it: their γ = 0.005 is a mean's 0.05 at M = 10."""

    def aggregate(self, messages: Message, weights: Tensor | None = None) -> Tensor:
        return messages.sum(weights)


@dataclass(frozen=True)
class Mean(Aggregator):
    """(1/M) Σ_m S_m."""

    def weight(self, num_workers: int) -> float:
        return 1 / num_workers

    def aggregate(self, messages: Message, weights: Tensor | None = None) -> Tensor:
        return messages.sum(weights).div_(messages.num_rows)
