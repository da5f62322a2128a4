"""Warm-up: whole vectors for the first rounds, then the messages of a compressor.

Tang et al.: 1-bit Adam, ICML 2021. PyTorch's hook of PowerSGD starts so as well (`start_powerSGD_iter`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.compressors.identity import Identity
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.dense import DenseMessage
from bench.wire.message import Message


@dataclass(frozen=True)
class WarmUp(Compressor):
    """C(x) = x in the first `num_rounds` rounds, then `then`.

    Args:
        then: a lossy compressor whose workers need not agree on anything.
        num_rounds: at least 1.
        turn: the number of rounds so far.
    """

    follows = True
    lossless = False

    then: Compressor
    num_rounds: int
    turn: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        kind = type(self.then).__name__
        if self.num_rounds < 1:
            raise InputError(f"num_rounds: {self.num_rounds}; at least 1 is needed")
        if self.then.lossless or self.then.agrees:
            why = "leaves nothing to warm up for" if self.then.lossless else "agrees on numbers in every round"
            raise InputError(f"then: {kind}; it {why}, a lossy compressor that does not agree is needed")

    @property
    def today(self) -> Compressor:
        """This round's compressor."""
        return Identity() if self.turn < self.num_rounds else self.then

    @property
    def exact(self) -> bool:
        return self.today.lossless

    @property
    def settled(self) -> Compressor:
        return self.then.settled

    @property
    def all_reducible(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.then.all_reducible

    @property
    def entrywise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.then.entrywise

    @property
    def keeps_input(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.then.keeps_input

    @property
    def repeats(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.then.repeats

    @property
    def may_exceed_dense(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.then.may_exceed_dense

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> Message:
        x = x.clone() if self.exact else x  # the vector that is sent is cleared in the error
        return self.today.compress(x, segments, noise)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> Message:
        return self.today.blank(num_rows, segments, like)

    def num_bits_paper(self, message: Message) -> Tensor:
        return (Identity() if isinstance(message, DenseMessage) else self.then).num_bits_paper(message)

    def contraction(self, segments: Segments) -> float | None:
        return self.then.contraction(segments)

    def error_bound(self, segments: Segments) -> float | None:
        return self.then.error_bound(segments)

    def variance(self, segments: Segments) -> float | None:
        return self.then.variance(segments)

    def after(self, answer: Message, segments: Segments) -> Self:
        then = self.then if self.exact else self.then.after(answer, segments)
        return replace(self, then=then, turn=self.turn + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"turn": self.turn, "then": self.then.state_dict()}

    def restored(self, state: dict[str, Any], device: torch.device) -> Self:
        then = self.then.restored(state["then"], device) if state["then"] else self.then
        return replace(self, turn=state["turn"], then=then)
