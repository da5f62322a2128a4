"""The contract of a compressor."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.message import Message

Segments = tuple[int, ...]
Maximum = Callable[[Tensor], tuple[Tensor, float]]
Agreement = tuple[Callable[[Tensor, Segments, Sequence[Noise]], Message], float]


def require_density(given: float) -> None:
    """Raise InputError unless a density is a fraction in (0, 1]."""
    if not 0 < given <= 1:
        raise InputError(f"density: {given}; a fraction in (0, 1] is needed")


class Compressor(ABC):
    """A map from vectors to messages, applied to each row and each segment of it apart. Never changes.

    One that goes by what the server answers makes another of itself (`after`). `segments` are the sizes of the
    consecutive parts of a row, adding up to d: its tensors, or all of it.
    """

    all_reducible: bool = False
    """Whether messages can be added up on their way, which a ring all-reduce needs."""

    entrywise: bool = False
    """Whether what becomes of an entry depends on no other, nor on where segments end."""

    keeps_input: bool = False
    """Whether a message holds the vector that it was made of, and not a copy."""

    repeats: bool = True
    """Whether compressing what was sent sends the same again; not so where entries are drawn and scaled."""

    @abstractmethod
    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> Message:
        """(R, d) vectors -> R messages. A NaN or infinity must show in `Message.finite`.

        A random compressor draws for row r from `noise[r]`, and from nothing else.
        """

    agrees: bool = False
    """Whether workers have to agree on something before they compress."""

    def agree(self, vectors: Iterable[Tensor], segments: Segments, like: Tensor, maximum: Maximum) -> Agreement:
        """What workers agree on before they compress, if anything.

        Args:
            vectors: (1, d) of each local uploader.
            segments: of a row.
            like: a vector (d,) of the parameters' dtype and device.
            maximum: (S,) of this process -> the largest of all processes', and the seconds in transit.

        Returns:
            What to call in the place of `compress` in this round, and the seconds in transit.
        """
        return self.compress, 0.0

    def offer_bits(self, segments: Segments, like: Tensor) -> int:
        """What each worker tells the others for it."""
        return 0

    follows: bool = False
    """Whether what is sent depends on the rounds before and their answers, so that a message is good for one."""

    def after(self, answer: Message, segments: Segments) -> Self:
        """The compressor of the next round, once all workers have the server's answer, a message of one row."""
        return self

    def state_dict(self) -> dict[str, Any]:
        """What the answers have made of it."""
        return {}

    def restored(self, state: dict[str, Any], device: torch.device) -> Self:
        """The compressor that had this state."""
        return self

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> Message:
        """Messages of any content, for vectors of `like`'s dtype and device: the schema, to decode and keep others."""
        return self.compress(like.new_zeros(num_rows, sum(segments)), segments, [Noise(0, 0, 0)] * num_rows)

    @abstractmethod
    def num_bits_paper(self, message: Message) -> Tensor:
        """(R,) int64: bits of each row as the method's own paper counts them."""

    @abstractmethod
    def contraction(self, segments: Segments) -> float | None:
        """The largest δ with ‖x − C(x)‖² ≤ (1 − δ)‖x‖² for every x; 1 if lossless, None if there is no such δ."""

    def variance(self, segments: Segments) -> float | None:
        """An ω with E C(x) = x and E‖C(x) − x‖² ≤ ω‖x‖² for every x; None if C is biased, or random without bound.

        Of entries that are zero or normal floats: nearer to zero, floats have fewer digits.
        """
        return None


class Agreeing(Compressor):
    """A compressor whose workers agree on numbers first: each offers its own, and all go by the largest.

    That is a message each way before the messages themselves: a float a segment, which the ledger adds.
    """

    shared: bool
    """Whether they do; otherwise each goes by its own."""

    @property
    def agrees(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.shared

    def agree(self, vectors: Iterable[Tensor], segments: Segments, like: Tensor, maximum: Maximum) -> Agreement:
        if not self.shared:
            return self.compress, 0.0
        none = like.new_zeros(1, len(segments))
        largest = torch.cat([none, *(self.offer(x, segments) for x in vectors)]).amax(dim=0)
        agreed, measured_s = maximum(largest)
        return partial(self.compress_agreed, agreed=agreed), measured_s

    def offer_bits(self, segments: Segments, like: Tensor) -> int:
        return self.shared * len(segments) * 8 * like.element_size()

    @abstractmethod
    def offer(self, x: Tensor, segments: Segments) -> Tensor:
        """(R, d) vectors -> (R, S) numbers, at least 0."""

    @abstractmethod
    def compress_agreed(self, x: Tensor, segments: Segments, noise: Sequence[Noise], agreed: Tensor) -> Message:
        """`compress`, by the largest offers (S,) of all who upload."""
