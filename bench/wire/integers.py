"""Codes for the integers of messages: levels, exponents, trits.

Every kind of message has its method's own code. Others can be chosen: `plain`, the machine's integers, as published
implementations send them; `packed`, equally many bits for each; and `coded`, close to the entropy.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numba
import numpy as np

from bench.errors import DamagedError, InputError
from bench.wire import ans
from bench.wire.reader import Reader

Code = Literal["plain", "packed", "coded"]


def require_code(given: str | None) -> None:
    """Raise InputError unless there is such a code. None is a message's own."""
    if given not in (None, *get_args(Code)):
        raise InputError(f"code: {given!r}; one of {', '.join(get_args(Code))} is needed, or null")


@dataclass(frozen=True)
class IntegerCode(ABC):
    """Maps integers (d,) from `low` to `high` to bytes, which are the last of a payload."""

    low: int
    high: int
    fixed_size = False
    """Whether all vectors of d integers take as many bytes."""

    @abstractmethod
    def num_bits(self, integers: np.ndarray, segments: Sequence[int]) -> int:
        """Return the bits that `encode` writes, without padding.

        Args:
            integers: (d,).
            segments: sizes, adding up to d, of parts in which integers are distributed alike.
        """

    @abstractmethod
    def encode(self, integers: np.ndarray, segments: Sequence[int]) -> np.ndarray:
        """Encode integers (d,) as bytes."""

    @abstractmethod
    def read(self, reader: Reader, segments: Sequence[int]) -> np.ndarray:
        """Decode the integers (d,) that make up the rest of a payload.

        Raises:
            DamagedError: the bytes are not such integers.
        """

    @property
    def dtype(self) -> np.dtype:
        """The smallest of the machine's integers."""
        fits = (
            t for t in (np.int8, np.uint8, np.int16) if np.iinfo(t).min <= self.low and self.high <= np.iinfo(t).max
        )
        return np.dtype(next(fits))

    def checked(self, integers: np.ndarray) -> np.ndarray:
        """Return integers (d,) that lie within the bounds.

        Raises:
            DamagedError: one does not.
        """
        if len(integers) and not (self.low <= integers.min() and integers.max() <= self.high):
            raise DamagedError(f"levels: one is not in {self.low} to {self.high}")
        return integers.astype(self.dtype, copy=False)


class Plain(IntegerCode):
    """The smallest of the machine's integers for each."""

    fixed_size = True

    def num_bits(self, integers: np.ndarray, segments: Sequence[int]) -> int:
        return len(integers) * 8 * self.dtype.itemsize

    def encode(self, integers: np.ndarray, segments: Sequence[int]) -> np.ndarray:
        return integers.astype(self.dtype.newbyteorder(">")).view(np.uint8)

    def read(self, reader: Reader, segments: Sequence[int]) -> np.ndarray:
        payload = reader.bytes(sum(segments) * self.dtype.itemsize, "levels").copy()
        return self.checked(payload.view(self.dtype.newbyteorder(">")))


class Packed(IntegerCode):
    """As many bits for each as the largest needs."""

    fixed_size = True

    @property
    def width(self) -> int:
        """The bits of an integer."""
        return (self.high - self.low).bit_length()

    def num_bits(self, integers: np.ndarray, segments: Sequence[int]) -> int:
        return len(integers) * self.width

    def encode(self, integers: np.ndarray, segments: Sequence[int]) -> np.ndarray:
        packed = np.zeros(-(-len(integers) * self.width // 8), np.uint8)
        _pack(integers, self.low, self.width, packed)
        return packed

    def read(self, reader: Reader, segments: Sequence[int]) -> np.ndarray:
        integers = np.empty(sum(segments), np.int32)
        packed = reader.bytes(-(-len(integers) * self.width // 8), "levels")
        if _unpack(packed, self.low, self.width, integers):
            raise DamagedError("levels: padding is not zero")
        return self.checked(integers)


class Coded(IntegerCode):
    """Asymmetric numeral systems, or packed where that is shorter; a byte tells which."""

    FLAG_BITS = 8

    @property
    def packed(self) -> Packed:
        """The other code."""
        return Packed(self.low, self.high)

    def num_bits(self, integers: np.ndarray, segments: Sequence[int]) -> int:
        chosen, packed = ans.model(integers, segments), self.packed.num_bits(integers, segments)
        return self.FLAG_BITS + (packed if chosen is None else min(packed, chosen.num_bits))

    def encode(self, integers: np.ndarray, segments: Sequence[int]) -> np.ndarray:
        chosen = ans.model(integers, segments)
        if chosen is None or chosen.num_bits >= self.packed.num_bits(integers, segments):
            return np.concatenate([np.zeros(1, np.uint8), self.packed.encode(integers, segments)])
        return np.concatenate([np.ones(1, np.uint8), ans.encode(integers, segments, chosen)])

    def read(self, reader: Reader, segments: Sequence[int]) -> np.ndarray:
        is_coded = int(reader.bytes(1, "code of levels")[0])
        if is_coded > 1:
            raise DamagedError(f"code of levels: {is_coded}; at most 1 is possible")
        if is_coded:
            return self.checked(ans.read(reader, segments, self.low, self.high))
        return self.packed.read(reader, segments)


def integer_code(code: Code | None, own: IntegerCode) -> IntegerCode:
    """Return the code of that name for the integers of a kind of message; its own, which is given, if None."""
    others = {"plain": Plain, "packed": Packed, "coded": Coded}
    return own if code is None else others[code](own.low, own.high)


@numba.njit(nogil=True, cache=True)
def _pack(integers: np.ndarray, low: int, width: int, packed: np.ndarray) -> None:
    """Write `width` bits of each, the highest first."""
    waiting, num_waiting, at = np.uint32(0), 0, 0
    for i in range(integers.size):
        waiting = (waiting << np.uint32(width)) | np.uint32(np.int32(integers[i]) - low)
        num_waiting += width
        while num_waiting >= 8:
            num_waiting -= 8
            packed[at] = np.uint8((waiting >> np.uint32(num_waiting)) & np.uint32(255))
            at += 1
    if num_waiting:
        packed[at] = np.uint8((waiting << np.uint32(8 - num_waiting)) & np.uint32(255))


@numba.njit(nogil=True, cache=True)
def _unpack(packed: np.ndarray, low: int, width: int, integers: np.ndarray) -> Any:
    """Invert `_pack`, and return the bits that are left over."""
    waiting, num_waiting, at, mask = np.uint32(0), 0, 0, np.uint32((1 << width) - 1)
    for i in range(integers.size):
        while num_waiting < width:
            waiting = (waiting << np.uint32(8)) | np.uint32(packed[at])
            num_waiting += 8
            at += 1
        num_waiting -= width
        integers[i] = np.int32((waiting >> np.uint32(num_waiting)) & mask) + low
    return np.int64(waiting & np.uint32((1 << num_waiting) - 1))
