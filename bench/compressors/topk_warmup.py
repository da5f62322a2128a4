"""Top-k with warm-up: the density starts high and falls in stages to its final value.

Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018, section 3.4.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch

from bench.compressors.base import Segments
from bench.compressors.topk import TopK
from bench.errors import InputError
from bench.wire.message import Message


@dataclass(frozen=True)
class TopKWarmUp(TopK):
    """T_k with a density of 1/4, 1/16, 1/64 and so on, each for `interval` rounds, down to `density`.

    Args:
        density: the final fraction kept, in (0, 1].
        interval: rounds of each earlier density; the paper takes those of one epoch.
        turn: the number of rounds so far.
    """

    follows = True

    interval: int = 600
    turn: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval < 1:
            raise InputError(f"interval: {self.interval}; at least 1 round is needed")

    def counts(self, segments: Segments) -> tuple[int, ...]:
        return self.today.counts(segments)

    @property
    def today(self) -> TopK:
        """Top-k with this round's density."""
        return TopK(max(self.density, 0.25 ** (1 + self.turn // self.interval)), self.code)

    @property
    def settled(self) -> TopK:
        return TopK(self.density, self.code)

    def after(self, answer: Message, segments: Segments) -> Self:
        return replace(self, turn=self.turn + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"turn": self.turn}

    def restored(self, state: dict[str, Any], device: torch.device) -> Self:
        return replace(self, turn=state["turn"])
