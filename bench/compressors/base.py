"""The interface of a compressor."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.message import Message

Segments = tuple[int, ...]
Maximum = Callable[[Tensor], tuple[Tensor, Any]]
"""(S,) of this process -> the largest over all processes, and what that cost, to be handed on."""
Agreement = tuple[Callable[[Tensor, Segments, Sequence[Noise]], Message], Any]


def require_density(given: float) -> None:
    """Raise InputError unless the density is in (0, 1]."""
    if not 0 < given <= 1:
        raise InputError(f"density: {given}; a fraction in (0, 1] is needed")


class Compressor(ABC):
    """Maps vectors to messages, treating each row and each segment of a row separately. Immutable.

    A compressor that depends on the server's answers returns its successor from `after`. `segments` are the sizes of
    the consecutive parts of a row, adding up to d: one per tensor, or one for the whole model.
    """

    all_reducible: bool = False
    """Whether messages can be summed in transit, as ring all-reduce requires."""

    entrywise: bool = False
    """Whether what becomes of an entry depends on no other, nor on where segments end."""

    lossless: bool = False
    """Whether C(x) = x for every x."""

    may_exceed_dense: bool = False
    """Whether a message of a gradient may take more bits than its floats: a declaration, for the laws."""

    keeps_input: bool = False
    """Whether a message holds the compressed vector itself rather than a copy."""

    repeats: bool = True
    """Whether compressing a sent vector again gives the same message; false if entries are drawn and scaled."""

    reuses: bool = False
    """Whether `compress_each` writes to the memory of earlier messages, which the caller then keeps for it."""

    @abstractmethod
    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> Message:
        """Compress vectors (R, d) to R messages. `Message.finite` must report a NaN or infinity.

        A random compressor draws for row r from `noise[r]` only.
        """

    def compress_each(
        self, vectors: Iterable[Tensor], segments: Segments, noise: Sequence[Noise], used: Message | None = None
    ) -> Iterator[tuple[Tensor, Message]]:
        """Compress vectors (1, d), which may share memory, one after another: yield each with its message.

        Messages may be written one after another in memory, so that `concatenate` has nothing to copy. `used`: an
        earlier result of that, whose memory may be used again.
        """
        for x, origin in zip(vectors, noise, strict=True):
            yield x, self.compress(x, segments, [origin])

    agrees: bool = False
    """Whether workers must agree on numbers before they compress."""

    def agree(self, vectors: Iterable[Tensor], segments: Segments, like: Tensor, maximum: Maximum) -> Agreement:
        """Let the workers agree on numbers before they compress, if the compressor needs any.

        Args:
            vectors: (1, d) of each local uploader.
            segments: the sizes of a row's segments.
            like: a vector (d,) of the parameters' dtype and device.
            maximum: (S,) of this process -> the largest over all processes, and what that cost.

        Returns:
            The function to call instead of `compress` in this round, and what `maximum` cost; None if it was not used.
        """
        return self.compress, None

    def offer_bits(self, segments: Segments, like: Tensor) -> int:
        """Return the bits that each uploading worker sends for this agreement."""
        return 0

    follows: bool = False
    """Whether a message depends on earlier rounds and their answers, so that it is valid for one round only."""

    @property
    def exact(self) -> bool:
        """Whether C(x) = x in this round."""
        return self.lossless

    @property
    def settled(self) -> "Compressor":
        """The compressor once a warm-up is over, if it has one."""
        return self

    def kinds(self, segments: Segments, like: Tensor) -> list[Message]:
        """Return a blank message of each kind that is sent: of this round's, and of that after a warm-up."""
        compressors = [self] if self.settled is self else [self, self.settled]
        return [compressor.blank(1, segments, like) for compressor in compressors]

    def after(self, answer: Message, segments: Segments) -> Self:
        """Return the compressor of the next round, given the server's answer, a message of one row."""
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return the state that depends on the server's past answers."""
        return {}

    def restored(self, state: dict[str, Any], device: torch.device) -> Self:
        """Return the compressor with this state."""
        return self

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> Message:
        """Return messages of arbitrary content for vectors of `like`'s dtype and device.

        They serve as the schema for decoding other messages and as storage for them.
        """
        return self.compress(like.new_zeros(num_rows, sum(segments)), segments, [Noise(0, 0, 0)] * num_rows)

    @abstractmethod
    def num_bits_paper(self, message: Message) -> Tensor:
        """Return (R,) int64: bits of each row as the method's own paper counts them."""

    @abstractmethod
    def contraction(self, segments: Segments) -> float | None:
        """Return the largest δ with ‖x − C(x)‖² ≤ (1 − δ)‖x‖² for every x; 1 if lossless, None if there is none."""

    def error_bound(self, segments: Segments) -> float | None:
        """Return a number that ‖x − C(x)‖ exceeds for no x, whatever its length; None if there is none.

        Errors fed back then stay bounded although C does not contract (Sahu et al. 2021, absolute compressors).
        """
        return None

    def variance(self, segments: Segments) -> float | None:
        """Return an ω with E C(x) = x and E‖C(x) − x‖² ≤ ω‖x‖² for every x; None if C is biased or has no such ω.

        This holds for entries that are zero or normal floats; subnormal floats have fewer digits.
        """
        return None


class Agreeing(Compressor):
    """A compressor whose workers first agree on numbers: each offers its own, and all use the largest.

    The agreement takes one message each way before the messages themselves: one float per segment, which the ledger
    adds.
    """

    shared: bool
    """Whether workers agree; otherwise each uses its own numbers."""

    @property
    def agrees(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.shared

    def agree(self, vectors: Iterable[Tensor], segments: Segments, like: Tensor, maximum: Maximum) -> Agreement:
        if not self.shared:
            return self.compress, None
        none = like.new_zeros(1, len(segments))
        offers = [(x, self.offer(x, segments)) for x in vectors]
        agreed, cost = maximum(torch.cat([none, *(offer for _, offer in offers)]).amax(dim=0))

        def compress(x: Tensor, segments: Segments, noise: Sequence[Noise]) -> Message:
            own = next((offer for offered, offer in offers if offered is x), None)
            return self.compress_agreed(x, segments, noise, agreed, self.offer(x, segments) if own is None else own)

        return compress, cost

    def offer_bits(self, segments: Segments, like: Tensor) -> int:
        return self.shared * len(segments) * 8 * like.element_size()

    @abstractmethod
    def offer(self, x: Tensor, segments: Segments) -> Tensor:
        """Return the numbers to offer, (R, S) and at least 0, for vectors (R, d)."""

    @abstractmethod
    def compress_agreed(
        self, x: Tensor, segments: Segments, noise: Sequence[Noise], agreed: Tensor, own: Tensor
    ) -> Message:
        """Do as `compress` does, with the largest offers (S,) of all uploaders, and those (R, S) of these vectors."""
