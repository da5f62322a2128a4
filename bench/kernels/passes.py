"""Compiled passes over long CPU vectors, single-threaded and without the interpreter lock.

Top-k dominates the cost of every sparse method: `torch.topk` takes 2.8 ms for a row of 400,000 entries. Here a
histogram of each segment, or of a sample of it, gives two thresholds, one slightly too low, one slightly too high. What
lies above both is chosen, and an exact selection among the few between them gives the rest. If the sample misled, all
entries are between.

Magnitudes are compared as integers: for floats of one sign the bit patterns have the order of the values. NaN and
infinity are the largest, so a broken gradient always reaches the message and is never lost.
"""

from collections.abc import Sequence
from functools import lru_cache

import numba
import numpy as np
import torch
from torch import Tensor

from bench.errors import InputError
from bench.kernels import masks

MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits of a float32 but the sign
SAMPLE = 8192
FEW = 1024  # entries that are sorted out without a histogram
LEADING = 14  # bits of a magnitude that name its bin of the histogram: those of the exponent, and 6 of the mantissa
LEADING_OF_SHORT = 11  # of a part that is not sampled: more bins would take longer to look through than its entries
BINS = 2**12  # of equal width, in which the candidates for the k-th are counted
HASH = np.uint64(2654435761)  # Knuth's multiplicative hash: sampling is robust to periodic data


def is_compiled(x: Tensor) -> bool:
    """Return whether compiled passes support a tensor; others use torch operations."""
    return x.device.type == "cpu" and x.dtype == torch.float32


@lru_cache(maxsize=16)  # counts may change from round to round
def as_array(sizes: Sequence[int], num_entries: int) -> np.ndarray:
    """Return the sizes of parts of so many entries as compiled passes take them, which do not check them.

    Raises:
        InputError: they do not add up to it.
    """
    if sum(sizes) != num_entries or min(sizes, default=0) < 0:
        raise InputError(f"segments: {sum(sizes)} entries; {num_entries} are needed, as in the vector")
    return np.array(sizes)


def spread(scales: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return, for each entry of consecutive segments of these sizes, the scale of its segment: (…, S) -> (…, n)."""
    return scales.repeat_interleave(torch.tensor(sizes, device=scales.device), dim=-1, output_size=sum(sizes))


def nonzero(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ascending positions of the integers (n,) that are not 0, and these: a quarter of torch's time on the
    CPU."""
    if x.device.type != "cpu":
        positions = x.nonzero()[:, 0]
        return positions, x[positions]
    positions, integers = _nonzero(x.numpy())
    return torch.from_numpy(positions), torch.from_numpy(integers)


@numba.njit(nogil=True, cache=True)
def _nonzero(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = masks.nonzero(x)
    count = masks.size(found)
    positions, integers = np.empty(count, np.int64), np.empty(count, x.dtype)
    masks.take(found, 0, x, positions, integers)
    return positions, integers


@numba.njit(nogil=True, cache=True)
def top_k(x: np.ndarray, segments: np.ndarray, counts: np.ndarray, out: np.ndarray, values: np.ndarray) -> None:
    """Find the counts[s] largest |x| in each segment of each row; among equal ones, the first.

    Args:
        x: (R, d) float32 bit patterns as int32.
        segments: (S,) sizes, adding up to d.
        counts: (S,) entries to keep, 1 <= counts[s] <= segments[s].
        out: (R, sum(counts)) of integers, filled with ascending positions.
        values: (R, sum(counts)) int32, filled with the patterns there.
    """
    for row in range(x.shape[0]):
        start = 0
        filled = 0
        for s in range(segments.size):
            part, last = x[row, start : start + segments[s]], filled + counts[s]
            largest = _largest(part, *_threshold(part, counts[s]))
            masks.take(largest, start, part, out[row, filled:last], values[row, filled:last])
            start += segments[s]
            filled = last


@numba.njit(nogil=True, cache=True)
def _bracket(part: np.ndarray, k: int) -> tuple[np.int32, np.int32]:
    """Return two magnitudes between which the k-th largest of `part` lies, or very likely lies if `part` is sampled."""
    if part.size < FEW:
        return np.int32(0), MAGNITUDE
    sampled = part.size > 4 * SAMPLE
    leading_bits = LEADING if sampled else LEADING_OF_SHORT
    shift, counts = np.int32(31 - leading_bits), np.zeros(2**leading_bits, np.int32)
    fewest = most = k
    if sampled:
        for i in range(SAMPLE):
            hashed = (np.uint64(i) * HASH) & np.uint64(0xFFFFFFFF)
            counts[(part[(hashed * np.uint64(part.size)) >> np.uint64(32)] & MAGNITUDE) >> shift] += 1
        expected = SAMPLE * k / part.size
        margin = 4 * np.sqrt(expected) + 4  # four standard deviations: a threshold on the wrong side is rare
        fewest, most = int(expected - margin), int(expected + margin)
    else:
        for i in range(part.size):
            counts[(part[i] & MAGNITUDE) >> shift] += 1
    low, high, seen = np.int32(0), MAGNITUDE, 0
    for leading in range(counts.size - 1, -1, -1):
        if seen < fewest <= seen + counts[leading]:
            high = np.int32((leading << shift) + (1 << shift) - 1)
        seen += counts[leading]
        if seen >= most:
            low = np.int32(leading << shift)
            break
    return low, high


@numba.njit(nogil=True, cache=True)
def _kth(magnitudes: np.ndarray, k: int | np.int64, low: np.int32, high: np.int32) -> np.int32:
    """Return the k-th largest of magnitudes (n,) from `low` to `high`. Many are first counted in bins."""
    if magnitudes.size < 2 * BINS:
        return np.partition(magnitudes, magnitudes.size - k)[magnitudes.size - k]
    shift = np.int32(0)
    while (high - low) >> shift >= BINS:
        shift += np.int32(1)
    counts = np.zeros(BINS, np.int64)
    for i in range(magnitudes.size):
        counts[(magnitudes[i] - low) >> shift] += 1
    left, leading = k, BINS - 1
    while counts[leading] < left:
        left -= counts[leading]
        leading -= 1
    ties, filled = np.empty(counts[leading] + 1, np.int32), 0
    for i in range(magnitudes.size):
        ties[filled] = magnitudes[i]  # always written: no branch to predict
        filled += np.int64((magnitudes[i] - low) >> shift == leading)
    return np.partition(ties[:filled], filled - left)[filled - left]


@numba.njit(nogil=True, cache=True)
def _threshold(part: np.ndarray, k: int) -> tuple[np.int32, np.int64]:
    """Return the k-th largest magnitude of `part`, and how many of those that equal it are among the k largest."""
    low, high = _bracket(part, k)
    num_above, doubtful = masks.above_and_between(part, MAGNITUDE, low, high)
    left, num_doubtful = k - num_above, masks.size(doubtful)
    if not 0 < left <= num_doubtful:  # the sample misled
        low, high = np.int32(0), MAGNITUDE
        _, doubtful = masks.above_and_between(part, MAGNITUDE, low, high)
        left, num_doubtful = np.int64(k), np.int64(part.size)
    positions, magnitudes = np.empty(num_doubtful, np.int64), np.empty(num_doubtful, np.int32)
    masks.take(doubtful, 0, part, positions, magnitudes)
    magnitudes &= MAGNITUDE
    kth = _kth(magnitudes, left, low, high)
    for i in range(num_doubtful):
        left -= np.int64(magnitudes[i] > kth)
    return kth, left


@numba.njit(nogil=True, cache=True)
def _largest(part: np.ndarray, kth: np.int32, num_equal: np.int64) -> np.ndarray:
    """Return the set of entries above a magnitude and of the first of those that equal it."""
    largest = np.empty(-(-part.size // masks.WORD), np.uint64)
    for i in range(largest.size):
        word = masks.above(part, i * masks.WORD, MAGNITUDE, kth)
        if num_equal:
            from_kth = masks.above(part, i * masks.WORD, MAGNITUDE, np.int32(kth - 1))
            equal = masks.first_bits(from_kth & ~word, num_equal)
            num_equal -= masks.num_bits(equal)
            word |= equal
        largest[i] = word
    return largest
