"""Asymmetric numeral systems: integers in close to as many bits as their entropy.

A range coder in the form of one number x, from which a symbol of frequency f out of 2^P takes log₂(2^P / f) bits (Duda:
Asymmetric Numeral Systems, arXiv 1311.2540). The frequencies are sent first. Segments of a vector whose integers are
distributed unlike the others' have frequencies of their own where this pays.

The number of bits follows from the frequencies without encoding: encoders fill up to it with zeros.
"""

from collections.abc import Sequence
from math import ceil, log2
from typing import Any, NamedTuple

import numba
import numpy as np

from bench.errors import DamagedError
from bench.wire.reader import Reader

MOST_SYMBOLS = 4096  # from the smallest integer to the largest
DIGITS = 15  # P
TOTAL = 1 << DIGITS
LEAST = 1 << 31  # x is at least this between symbols, and below 2⁶³
STATE_BITS = 64
FREQUENCY_BITS = 16
HEADER_BITS = 48  # the smallest integer, and how many there are up to the largest
FRACTION = 16  # costs are counted in 2⁻¹⁶ bits, so that all machines find the same sum
LOSS = 15  # rounding of x takes less than 2⁻¹⁵ bits a symbol: log₂(1 + 2⁻¹⁶)

COSTS = np.array([0] + [ceil((DIGITS - log2(f)) * 2**FRACTION) for f in range(1, TOTAL + 1)])


class Model(NamedTuple):
    """What the decoder must know besides the bits of x.

    Attributes:
        lowest: the smallest integer.
        apart: (S,) bool, which segments have frequencies of their own.
        frequencies: (G, K) of the integers from `lowest` on: those of all other segments first, if there are any.
        num_bits: all bits of the code.
    """

    lowest: int
    apart: np.ndarray
    frequencies: np.ndarray
    num_bits: int


def model(symbols: np.ndarray, segments: Sequence[int]) -> Model | None:
    """Choose the frequencies for integers (d,) in these segments; None if they span more than MOST_SYMBOLS."""
    lowest, highest = int(symbols.min()), int(symbols.max())
    if highest - lowest >= MOST_SYMBOLS:
        return None
    counts = np.zeros((len(segments), highest - lowest + 1), np.int64)
    _count(symbols, lowest, np.array(segments), counts)
    apart = np.zeros(len(segments), bool)
    if len(segments) > 1:
        own, shared = _frequencies(counts), _frequencies(counts.sum(axis=0, keepdims=True))
        saved = (counts * (COSTS[shared] - COSTS[own])).sum(axis=1) >> FRACTION
        apart = saved > FREQUENCY_BITS * counts.shape[1]
    rows = counts[apart]
    if not apart.all():
        rows = np.concatenate([counts[~apart].sum(axis=0, keepdims=True), rows])
    frequencies = _frequencies(rows)
    return Model(lowest, apart, frequencies, _num_bits(rows, frequencies, len(segments)))


def encode(symbols: np.ndarray, segments: Sequence[int], chosen: Model) -> np.ndarray:
    """Encode integers (d,) as bytes."""
    words = np.zeros(chosen.num_bits // 32 + 1, np.uint32)
    at, x = _put(symbols, chosen.lowest, np.array(segments), *_tables(chosen), words)
    num_symbols = chosen.frequencies.shape[1]
    head = [np.array([chosen.lowest], ">i4"), np.array([num_symbols], ">u2"), np.packbits(chosen.apart)]
    body = [chosen.frequencies.astype(">u2"), np.array([x], ">u8"), words[at:].astype(">u4")]
    payload = np.concatenate([part.ravel().view(np.uint8) for part in (*head, *body)])
    return np.pad(payload, (0, -(-chosen.num_bits // 8) - len(payload)))


def read(reader: Reader, segments: Sequence[int], low: int, high: int) -> np.ndarray:
    """Decode the integers (d,) from `low` to `high` that make up the rest of a payload.

    Raises:
        DamagedError: the bytes are not such integers.
    """
    begin = reader.at
    lowest = int(reader.bytes(4, "smallest level").copy().view(">i4")[0])
    num_symbols = int(reader.bytes(2, "number of levels").copy().view(">u2")[0])
    if not (1 <= num_symbols <= MOST_SYMBOLS and low <= lowest and lowest + num_symbols - 1 <= high):
        raise DamagedError(f"levels: {num_symbols} from {lowest} on; only those of {low} to {high} are possible")
    apart = reader.bits(len(segments), "segments").astype(bool)
    num_rows = int(apart.sum()) + (not apart.all())
    frequencies = reader.bytes(num_rows * num_symbols * 2, "frequencies").copy().view(">u2").astype(np.int64)
    frequencies = frequencies.reshape(num_rows, num_symbols)
    if (frequencies.sum(axis=1) != TOTAL).any():
        raise DamagedError(f"frequencies: they do not add up to {TOTAL}")
    found = Model(lowest, apart, frequencies, 0)
    x = np.uint64(reader.bytes(8, "state").copy().view(">u8")[0])
    rest = reader.bytes(reader.left, "levels")
    words = rest[: len(rest) // 4 * 4].copy().view(">u4").astype(np.uint32)
    lookup = np.stack([np.repeat(np.arange(num_symbols, dtype=np.uint16), row) for row in frequencies])
    symbols, counts = np.empty(sum(segments), np.int32), np.zeros(frequencies.shape, np.int64)
    used = _take(words, x, lowest, np.array(segments), *_tables(found), lookup, symbols, counts)
    if used < 0:
        raise DamagedError("levels: they end early, or their end is wrong")
    if rest[4 * used :].any() or reader.at - begin != -(-_num_bits(counts, frequencies, len(segments)) // 8):
        raise DamagedError("levels: bytes are left over or missing")
    return symbols


def _num_bits(counts: np.ndarray, frequencies: np.ndarray, num_segments: int) -> int:
    """Return the bits of the code of symbols that occur so often, (G, K), under these frequencies."""
    of_symbols = (int((counts * COSTS[frequencies]).sum()) >> FRACTION) + 1 + (int(counts.sum()) >> LOSS) + 1
    flags = 8 * -(-num_segments // 8)
    return HEADER_BITS + flags + FREQUENCY_BITS * frequencies.size + STATE_BITS + of_symbols


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Return frequencies (G, K) that add up to 2^P, at least 1 for symbols that occur."""
    occurs = counts > 0
    room = TOTAL - occurs.sum(axis=1, keepdims=True)
    shares = occurs + counts * room // np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares[np.arange(len(counts)), counts.argmax(axis=1)] += TOTAL - shares.sum(axis=1)
    return shares


def _tables(chosen: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The row of each segment (S,), and frequencies and their starts (G, K), for the compiled passes."""
    shared = int(not chosen.apart.all())
    rows = np.where(chosen.apart, np.cumsum(chosen.apart) - 1 + shared, 0)
    starts = np.cumsum(chosen.frequencies, axis=1) - chosen.frequencies
    return rows, chosen.frequencies.astype(np.uint64), starts.astype(np.uint64)


@numba.njit(nogil=True, cache=True)
def _count(symbols: np.ndarray, lowest: int, segments: np.ndarray, counts: np.ndarray) -> None:
    first = 0
    for s in range(segments.size):
        for i in range(first, first + segments[s]):
            counts[s, np.int64(symbols[i]) - lowest] += 1
        first += segments[s]


@numba.njit(nogil=True, cache=True)
def _put(
    symbols: np.ndarray,
    lowest: int,
    segments: np.ndarray,
    rows: np.ndarray,
    frequencies: np.ndarray,
    starts: np.ndarray,
    words: np.ndarray,
) -> Any:
    """Write words from the end of the room on, last symbol first; return where they begin, and x."""
    x, at, end = np.uint64(LEAST), words.size, symbols.size
    for s in range(segments.size - 1, -1, -1):
        for i in range(end - 1, end - 1 - segments[s], -1):
            symbol = np.int64(symbols[i]) - lowest
            f = frequencies[rows[s], symbol]
            if x >= f << np.uint64(63 - DIGITS):
                at -= 1
                words[at] = np.uint32(x & np.uint64(0xFFFFFFFF))
                x >>= np.uint64(32)
            whole = x // f
            x = (whole << np.uint64(DIGITS)) + (x - whole * f) + starts[rows[s], symbol]
        end -= segments[s]
    return at, x


@numba.njit(nogil=True, cache=True)
def _take(
    words: np.ndarray,
    x: Any,
    lowest: int,
    segments: np.ndarray,
    rows: np.ndarray,
    frequencies: np.ndarray,
    starts: np.ndarray,
    lookup: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Read the symbols and count them, (G, K); return how many words that took, −1 if they are not a code's."""
    at, i = 0, 0
    if x < LEAST or x >= np.uint64(1) << np.uint64(63):
        return -1
    for s in range(segments.size):
        row = rows[s]
        for _ in range(segments[s]):
            slot = x & np.uint64(TOTAL - 1)
            symbol = lookup[row, slot]
            x = frequencies[row, symbol] * (x >> np.uint64(DIGITS)) + slot - starts[row, symbol]
            if x < np.uint64(LEAST):
                if at >= words.size:
                    return -1
                x = (x << np.uint64(32)) | np.uint64(words[at])
                at += 1
            symbols[i] = np.int64(symbol) + lowest
            counts[row, symbol] += 1
            i += 1
    return at if x == np.uint64(LEAST) else -1
