"""Elias omega (recursive) code: positive integers, small ones in few bits. QSGD sends its levels in it.

Elias: Universal Codeword Sets and Representations of the Integers, 1975. The code of 1 is "0". The code of n > 1 is the
code of (the number of bits of n) − 1 without its last "0", then n in binary, then "0".

A vector of signed levels takes the shorter of two codes (Alistarh et al. 2017, appendix A): for every non-zero entry
the gap since the last one, its sign and its level; or for every entry its level plus one, and a sign if non-zero.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from bench.errors import DamagedError
from bench.wire.integers import IntegerCode
from bench.wire.reader import Reader

HEADER_BITS = 40  # which of the codes, and the number of non-zero entries
GAPS, ALL = range(2)
MOST_DIGITS = 40  # of a gap or level


class Elias(IntegerCode):
    """The shorter of the two codes of a vector."""

    def num_bits(self, integers: np.ndarray, segments: Sequence[int]) -> int:
        return num_bits(integers)

    def encode(self, integers: np.ndarray, segments: Sequence[int]) -> np.ndarray:
        return encode(integers)

    def read(self, reader: Reader, segments: Sequence[int]) -> np.ndarray:
        levels = np.empty(sum(segments), self.dtype)
        decode(reader.bytes(reader.left, "levels"), levels)
        return self.checked(levels)


def num_bits(levels: np.ndarray) -> int:
    """Return the bits that `encode` writes for levels (d,), without padding."""
    _, of_gaps, of_all = _lengths(levels, TABLE)
    return HEADER_BITS + min(of_gaps, of_all)


def encode(levels: np.ndarray) -> np.ndarray:
    """Encode integers (d,) as bytes."""
    num_entries, of_gaps, of_all = _lengths(levels, TABLE)
    code = GAPS if of_gaps < of_all else ALL
    bits = np.zeros(min(of_gaps, of_all), np.uint8)
    _write(levels, code == GAPS, bits)
    header = [np.array([code], np.uint8), np.array([num_entries], ">u4").view(np.uint8)]
    return np.concatenate([*header, np.packbits(bits)])


def decode(payload: np.ndarray, out: np.ndarray) -> None:
    """Invert `encode`: write the levels to `out` (d,).

    Raises:
        DamagedError: the bytes are not such a vector.
    """
    reader = Reader(payload)
    code = int(reader.bytes(1, "code of levels")[0])
    if code > ALL:
        raise DamagedError(f"code of levels: {code}; at most {ALL} is possible")
    num_entries = reader.number(out.size, "number of levels")
    bits = np.unpackbits(reader.bytes(reader.left, "levels"))
    out[:] = 0
    end = _read(bits, code == GAPS, num_entries, np.iinfo(out.dtype).max, out)
    if end < 0:
        raise DamagedError("levels: they end early, or one is too large or out of place")
    if np.count_nonzero(out) != num_entries or len(bits) - end >= 8 or bits[end:].any():
        raise DamagedError(f"levels: bits are left over, or not {num_entries} are there")


@numba.njit(nogil=True, cache=True)
def length(n: Any) -> int:
    """Return the number of bits of the code of n ≥ 1."""
    total = 1
    while n > 1:
        num_digits = 0
        while n >> num_digits:
            num_digits += 1
        total += num_digits
        n = num_digits - 1
    return total


TABLE = np.array([length(max(n, 1)) for n in range(1024)])
BLOCK = 256  # levels among which those that are not 0 are found before their codes are counted


@numba.njit(nogil=True, cache=True)
def _lengths(levels: np.ndarray, table: np.ndarray) -> Any:
    """Return the number of non-zero entries, and the bits of both codes. `table`: the lengths of small integers."""
    found, last = np.empty(BLOCK, np.int64), -1
    num_entries, of_gaps, of_all = 0, 0, levels.size  # a level of 0 takes one bit
    for start in range(0, levels.size, BLOCK):
        count = 0
        for i in range(start, min(start + BLOCK, levels.size)):  # always written: no branch to predict
            found[count] = i
            count += np.int64(levels[i] != 0)
        for f in range(count):
            i = found[f]
            level, gap = abs(np.int64(levels[i])), i - last
            of_all += table[level + 1] if level < table.size - 1 else length(level + 1)  # and a sign for the 0's bit
            of_gaps += (table[gap] if gap < table.size else length(gap)) + 1
            of_gaps += table[level] if level < table.size else length(level)
            last = i
        num_entries += count
    return num_entries, of_gaps, of_all


@numba.njit(nogil=True, cache=True)
def _write(levels: np.ndarray, by_gaps: bool, bits: np.ndarray) -> None:
    at, last = 0, -1
    for i in range(levels.size):
        level = abs(np.int64(levels[i]))
        if level or not by_gaps:
            at = _put(i - last if by_gaps else level + 1, bits, at)
            if level:
                bits[at] = levels[i] < 0
                at += 1
            if by_gaps:
                at = _put(level, bits, at)
            last = i


@numba.njit(nogil=True, cache=True)
def _read(bits: np.ndarray, by_gaps: bool, num_entries: int, most: int, out: np.ndarray) -> int:
    """Return where the levels end; −1 if there are not as many, or one is above `most` or beyond the vector."""
    at, i = 0, -1
    for _ in range(num_entries if by_gaps else out.size):
        n, at = _take(bits, at)
        if at < 0:
            return -1
        i += n if by_gaps else 1
        level = np.int64(0) if by_gaps else n - 1
        if by_gaps or level:
            if at >= bits.size or i >= out.size:
                return -1
            sign = 1 - 2 * np.int64(bits[at])
            at += 1
            if by_gaps:
                level, at = _take(bits, at)
            if at < 0 or level > most:
                return -1
            out[i] = sign * level
    return at


@numba.njit(nogil=True, cache=True)
def _put(n: Any, bits: np.ndarray, at: int) -> int:
    """Write the code of n from bit `at` on, and return where it ends."""
    end = at + length(n)
    place = end - 1  # the last bit, which stays 0; groups are written from the last to the first
    while n > 1:
        num_digits = 0
        while n >> num_digits:
            bits[place - 1 - num_digits] = (n >> num_digits) & 1
            num_digits += 1
        place -= num_digits
        n = num_digits - 1
    return end


@numba.njit(nogil=True, cache=True)
def _take(bits: np.ndarray, at: int) -> Any:
    """Return the integer whose code begins at bit `at`, and where the code ends; −1 if it does not end in time."""
    n = np.int64(1)
    while at < bits.size and bits[at]:
        num_digits, n = n + 1, np.int64(0)
        if num_digits > MOST_DIGITS or at + num_digits >= bits.size:
            return n, -1
        for _ in range(num_digits):
            n = 2 * n + np.int64(bits[at])
            at += 1
    return (n, at + 1) if at < bits.size else (n, -1)
