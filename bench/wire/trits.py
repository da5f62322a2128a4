"""Ternary vectors as bytes: −1, 0 or +1 per entry.

A vector takes the shortest of three codes: the positions of its zeros and one bit for every other entry; the positions
of its non-zero entries and one bit for each; or five entries per byte. The shortest is within 3 % of the entropy for
long vectors with as many −1 as +1. Without zeros it takes one bit per entry.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numba
import numpy as np
import torch

from bench.errors import DamagedError
from bench.wire.integers import IntegerCode
from bench.wire.positions import LENGTH_BITS, make_position_code, rice_shift
from bench.wire.reader import Reader

HEADER_BITS = 40  # which of the codes, and the number of positions in it
ZEROS, ENTRIES, TRITS = range(3)
BLOCK = 256  # entries that are compared before their gaps are counted
GATHER = np.uint64(0x0102040810204080)  # times eight bytes of 0 or 1: these bits in the leading byte, the first lowest
POWERS = 3 ** np.arange(5, dtype=np.uint8)  # five entries per byte: 3⁵ = 243


class Trits(IntegerCode):
    """The shortest of the three codes of a vector."""

    def num_bits(self, integers: np.ndarray, segments: Sequence[int]) -> int:
        return num_bits(integers)

    def encode(self, integers: np.ndarray, segments: Sequence[int]) -> np.ndarray:
        return encode(integers)

    def read(self, reader: Reader, segments: Sequence[int]) -> np.ndarray:
        return read(reader, sum(segments))


TRITS_OF_VECTOR = Trits(-1, 1)


def num_bits(values: np.ndarray) -> int:
    """Return the bits that `encode` writes for values (d,) int8, without padding."""
    return HEADER_BITS + _shortest(len(values), _count(values), partial(_quotients, values))[2]


def num_bits_of_entries(positions: np.ndarray, dim: int) -> int:
    """Return the bits that `encode` writes for a vector with entries other than 0 at these ascending positions."""
    return HEADER_BITS + _shortest(dim, len(positions), partial(_quotients_of_entries, positions, dim))[2]


def encode(values: np.ndarray) -> np.ndarray:
    """Encode values (d,) int8 as bytes."""
    code, num_named, _ = _shortest(len(values), _count(values), partial(_quotients, values))
    header = [np.array([code], np.uint8), np.array([num_named], ">u4").view(np.uint8)]
    if code == TRITS:
        trits = np.pad(values + 1, (0, -len(values) % 5)).astype(np.uint8)
        return np.concatenate([*header, trits.reshape(-1, 5) @ POWERS])
    named = torch.from_numpy(np.flatnonzero((values == 0) == (code == ZEROS)))
    positions = [make_position_code((len(values),), (num_named,)).encode(named)] if num_named else []
    return np.concatenate([*header, np.packbits(values[values != 0] < 0), *positions])


def decode(payload: np.ndarray, dim: int) -> np.ndarray:
    """Invert `encode`: return values (d,) int8.

    Raises:
        DamagedError: the bytes are not such a vector.
    """
    values = read(reader := Reader(payload), dim)
    reader.end()
    return values


def read(reader: Reader, dim: int) -> np.ndarray:
    """Decode the values (d,) int8 that come next in a payload, as `decode` does."""
    code = int(reader.bytes(1, "code of trits")[0])
    if code > TRITS:
        raise DamagedError(f"code of trits: {code}; at most {TRITS} is possible")
    num_named = reader.number(0 if code == TRITS else dim, "number of positions")
    if code == TRITS:
        packed = reader.bytes(-(-dim // 5), "trits")
        digits = (packed[:, None] // POWERS % 3).astype(np.int8).ravel()
        if (packed >= 3**5).any() or digits[dim:].any():
            raise DamagedError("trits: padding is not zero, or a byte above 242")
        return digits[:dim] - 1
    num_entries = dim - num_named if code == ZEROS else num_named
    signs = reader.bits(num_entries, "signs")
    has_entry = np.full(dim, code == ZEROS)
    if num_named:
        has_entry[make_position_code((dim,), (num_named,)).read(reader).numpy()] ^= True
    values = np.zeros(dim, np.int8)
    values[has_entry] = 1 - 2 * signs.astype(np.int8)
    return values


def _shortest(dim: int, num_entries: int, quotients: Callable[[bool, int], int]) -> tuple[int, int, int]:
    """Return the shortest code, the number of positions that it lists, and its bits after the header.

    Args:
        dim: d.
        num_entries: how many are not 0.
        quotients: (whether zeros are listed, shift) -> the sum of the listed positions' gaps, each shifted.
    """
    code, num_named = (ENTRIES, num_entries) if 2 * num_entries < dim else (ZEROS, dim - num_entries)
    num_bits = num_entries
    if num_named:
        shift = rice_shift(num_named / dim)
        num_bits += LENGTH_BITS + num_named * (1 + shift) + quotients(code == ZEROS, shift)
    if (num_bits_of_trits := 8 * -(-dim // 5)) < num_bits:
        return TRITS, 0, num_bits_of_trits
    return code, num_named, num_bits


@numba.njit(nogil=True, cache=True)
def _count(values: np.ndarray) -> int:
    count = 0
    for i in range(values.size):
        count += values[i] != 0
    return count


@numba.njit(nogil=True, cache=True)
def _quotients(values: np.ndarray, zeros: bool, shift: int) -> Any:
    """Return the sum of the shifted gaps before the zeros, or before the other entries."""
    before, inside, after = _gaps_of_eight(shift)
    flags = np.zeros(BLOCK, np.uint8)
    eights = flags.view(np.uint64)
    total, gap = 0, 0  # gap: entries since the last listed one
    for start in range(0, values.size, BLOCK):
        part = values[start : start + BLOCK]
        for i in range(part.size):
            flags[i] = (part[i] == 0) == zeros
        flags[part.size :] = 0
        for e in range(eights.size):
            listed = (eights[e] * GATHER) >> np.uint64(56)
            gap += before[listed]
            if listed:
                total += (gap >> shift) + inside[listed]
                gap = after[listed]
    return total


@numba.njit(nogil=True, cache=True)
def _gaps_of_eight(shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every choice of listed entries among eight: the gap before the first (8 without one), the sum of the shifted
    gaps between them, and the gap after the last."""
    before, (inside, after) = np.full(256, 8), np.zeros((2, 256), np.int64)
    for listed in range(1, 256):
        last = -1
        for i in range(8):
            if (listed >> i) & 1:
                if last < 0:
                    before[listed] = i
                else:
                    inside[listed] += (i - last - 1) >> shift
                last = i
        after[listed] = 7 - last
    return before, inside, after


@numba.njit(nogil=True, cache=True)
def _quotients_of_entries(positions: np.ndarray, dim: int, zeros: bool, shift: int) -> int:
    """Do as `_quotients` does, given the positions of the entries. Before most zeros there is no gap."""
    total, last, run = 0, -1, 0
    for i in range(positions.size):
        gap = positions[i] - last - 1
        if not zeros:
            total += gap >> shift
        elif gap:
            total += run >> shift
            run = 0
        run += 1
        last = positions[i]
    if zeros and last < dim - 1:
        total += run >> shift
    return total
