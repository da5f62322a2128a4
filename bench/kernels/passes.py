"""Compiled passes over long CPU vectors, single-threaded and without the interpreter lock.

Top-k dominates the cost of every sparse method: `torch.topk` takes 2.8 ms for a row of 400,000 entries. Here a sample
of each segment gives two thresholds, one slightly too low, one slightly too high. What lies above both is chosen, and
an exact selection among the few between them gives the rest. If the sample misled, all entries are between.

Magnitudes are compared as integers: for floats of one sign the bit patterns have the order of the values. NaN and
infinity are the largest, so a broken gradient always reaches the message and is never lost.
"""

from collections.abc import Sequence
from functools import lru_cache

import numba
import numpy as np
import torch
from torch import Tensor

from bench.kernels import masks

MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits of a float32 but the sign
SAMPLE = 8192
BINS = 2**12  # of equal width, in which the candidates for the k-th are counted
HASH = np.uint64(2654435761)  # Knuth's multiplicative hash: sampling is robust to periodic data


def is_compiled(x: Tensor) -> bool:
    """Return whether compiled passes support a tensor; others use torch operations."""
    return x.device.type == "cpu" and x.dtype == torch.float32


@lru_cache(maxsize=16)  # counts may change from round to round
def as_array(sizes: Sequence[int]) -> np.ndarray:
    """Return sizes as compiled passes take them."""
    return np.array(sizes)


def spread(scales: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return, for each entry of consecutive segments of these sizes, the scale of its segment: (…, S) -> (…, n)."""
    return scales.repeat_interleave(torch.tensor(sizes, device=scales.device), dim=-1, output_size=sum(sizes))


def nonzero(x: Tensor) -> Tensor:
    """Return the ascending positions of the integers (n,) that are not 0: a quarter of torch's time on the CPU."""
    if x.device.type != "cpu":
        return x.nonzero()[:, 0]
    return torch.from_numpy(_nonzero(x.numpy()))


@numba.njit(nogil=True, cache=True)
def _nonzero(x: np.ndarray) -> np.ndarray:
    found = masks.nonzero(x)
    positions = np.empty(masks.size(found), np.int64)
    masks.positions(found, 0, positions)
    return positions


@numba.njit(nogil=True, cache=True)
def top_k(x: np.ndarray, segments: np.ndarray, counts: np.ndarray, out: np.ndarray) -> None:
    """Find the counts[s] largest |x| in each segment of each row; among equal ones, the first.

    Args:
        x: (R, d) float32 bit patterns as int32.
        segments: (S,) sizes, adding up to d.
        counts: (S,) entries to keep, 1 <= counts[s] <= segments[s].
        out: (R, sum(counts)) int64, filled with ascending positions.
    """
    for row in range(x.shape[0]):
        start = 0
        filled = 0
        for s in range(segments.size):
            _select(x[row, start : start + segments[s]], counts[s], start, out[row, filled : filled + counts[s]])
            start += segments[s]
            filled += counts[s]


@numba.njit(nogil=True, cache=True)
def sample_rank(n: int, k: int) -> int:
    """Return the rank (largest first) of the sampled entry that serves as threshold; 0 if sampling does not pay.

    With high probability the entry of this rank among SAMPLE ones is no larger than the k-th of n.
    """
    expected = SAMPLE * k / n
    rank = int(expected + 4 * np.sqrt(expected) + 4)  # four standard deviations: a threshold too high is rare
    return rank if n > 4 * SAMPLE and rank < SAMPLE // 2 else 0


@numba.njit(nogil=True, cache=True)
def _bracket(part: np.ndarray, k: int) -> tuple[np.int32, np.int32]:
    """Return two magnitudes between which the k-th largest of `part` very likely lies."""
    rank = sample_rank(part.size, k)
    if rank == 0:
        return np.int32(0), MAGNITUDE
    sample = np.empty(SAMPLE, np.int32)
    for i in range(SAMPLE):
        hashed = (np.uint64(i) * HASH) & np.uint64(0xFFFFFFFF)
        sample[i] = part[(hashed * np.uint64(part.size)) >> np.uint64(32)] & MAGNITUDE
    sample = np.partition(sample, SAMPLE - rank)[SAMPLE - rank :]
    low = sample[0]
    expected = SAMPLE * k / part.size
    above = int(expected - 4 * np.sqrt(expected) - 4)
    return low, np.partition(sample, rank - above)[rank - above] if above > 0 else MAGNITUDE


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
def _select(part: np.ndarray, k: int, start: int, out: np.ndarray) -> None:
    """Write the positions of the k largest of `part`, plus `start`, to `out`, ascending; of equal ones, the first."""
    low, high = _bracket(part, k)
    chosen, doubtful = masks.above_and_between(part, MAGNITUDE, low, high)
    left, num_doubtful = k - masks.size(chosen), masks.size(doubtful)
    if not 0 <= left <= num_doubtful:  # the sample misled
        low, high = np.int32(0), MAGNITUDE
        chosen, doubtful = masks.above_and_between(part, MAGNITUDE, low, high)
        left, num_doubtful = k, part.size
    if left > 0:
        candidates = np.empty(num_doubtful, np.int64)
        masks.positions(doubtful, 0, candidates)
        magnitudes = np.empty(num_doubtful, np.int32)
        for i in range(num_doubtful):
            magnitudes[i] = part[candidates[i]] & MAGNITUDE
        kth = _kth(magnitudes, left, low, high)
        num_equal = left
        for i in range(num_doubtful):
            num_equal -= np.int64(magnitudes[i] > kth)
        for i in range(num_doubtful):
            equal = np.int64(magnitudes[i] == kth) & np.int64(num_equal > 0)
            num_equal -= equal
            masks.insert(chosen, candidates[i], np.int64(magnitudes[i] > kth) | equal)
    masks.positions(chosen, start, out)
