"""Compiled passes over long CPU vectors, single-threaded and without the interpreter lock.

Top-k dominates the cost of every sparse method: `torch.topk` takes 2.8 ms for a row of 400,000 entries. Here a sample
of each segment gives a threshold slightly too low, one pass collects the survivors, and an exact selection among those
few gives the same index set. If the threshold is too high, or far too low, the selection runs on the whole segment.

Magnitudes are compared as integers: for floats of one sign the bit patterns have the order of the values. NaN and
infinity are the largest, so a broken gradient always reaches the message and is never lost.
"""

from collections.abc import Sequence
from functools import lru_cache

import numba
import numpy as np
import torch
from torch import Tensor

MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits of a float32 but the sign
BLOCK = 8  # entries whose maximum is compared at once; most blocks have no survivor
SAMPLE = 8192
BINS, TRAILING = 2**14, np.int32(17)  # leading and other bits of a magnitude
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
    positions = torch.empty(len(x) + 1, dtype=torch.int64)  # only written pages are allocated
    return positions[: _nonzero(x.numpy(), positions.numpy())].clone()


@numba.njit(nogil=True, cache=True)
def _nonzero(x: np.ndarray, positions: np.ndarray) -> np.int64:
    count, whole = np.int64(0), x.size - x.size % BLOCK
    for start in range(0, whole, BLOCK):
        some = x[start]
        for j in range(1, BLOCK):
            some |= x[start + j]
        if some:
            for j in range(BLOCK):  # always written: no branch to predict
                positions[count] = start + j
                count += np.int64(x[start + j] != 0)
    for i in range(whole, x.size):
        positions[count] = i
        count += np.int64(x[i] != 0)
    return count


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
            part = x[row, start : start + segments[s]]
            survivors = _survivors(part, counts[s])
            _select(part, survivors, counts[s], start, out[row, filled : filled + counts[s]])
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
def _survivors(part: np.ndarray, k: int) -> np.ndarray:
    """Return ascending positions that include the k largest of `part`: few of them if sampling succeeds, else all."""
    rank = sample_rank(part.size, k)
    if rank > 0:
        sample = np.empty(SAMPLE, np.int32)
        for i in range(SAMPLE):
            hashed = (np.uint64(i) * HASH) & np.uint64(0xFFFFFFFF)
            sample[i] = part[(hashed * np.uint64(part.size)) >> np.uint64(32)] & MAGNITUDE
        threshold = np.partition(sample, SAMPLE - rank)[SAMPLE - rank]
        room = min(part.size, 4 * k + SAMPLE)
        found = np.empty(room + BLOCK, np.int64)
        num_found = _compact(part, threshold, found, room)
        if k <= num_found <= room:
            return found[:num_found]
    return np.arange(part.size)


@numba.njit(nogil=True, cache=True)
def _compact(part: np.ndarray, threshold: int, found: np.ndarray, room: int) -> np.int64:
    """Write the positions of entries at or above `threshold` to `found`, and return their number.

    Return room + 1 if there are more than `room`.
    """
    num_found = np.int64(0)
    whole = part.size - part.size % BLOCK
    for start in range(0, whole, BLOCK):
        largest = np.int32(0)
        for j in range(BLOCK):
            largest = max(largest, part[start + j] & MAGNITUDE)
        if largest >= threshold:
            if num_found > room:
                return np.int64(room + 1)
            for j in range(BLOCK):
                found[num_found] = start + j
                num_found += np.int64((part[start + j] & MAGNITUDE) >= threshold)
    for i in range(whole, part.size):
        if num_found > room:
            return np.int64(room + 1)
        found[num_found] = i
        num_found += np.int64((part[i] & MAGNITUDE) >= threshold)
    return num_found


@numba.njit(nogil=True, cache=True)
def _kth(magnitudes: np.ndarray, k: int) -> np.int32:
    """Return the k-th largest of magnitudes (n,). Many are first counted by their leading bits."""
    if magnitudes.size < 2 * BINS:
        return np.partition(magnitudes, magnitudes.size - k)[magnitudes.size - k]
    counts = np.zeros(BINS, np.int64)
    for i in range(magnitudes.size):
        counts[magnitudes[i] >> TRAILING] += 1
    left, leading = k, BINS - 1
    while counts[leading] < left:
        left -= counts[leading]
        leading -= 1
    ties, filled = np.empty(counts[leading] + 1, np.int32), 0
    for i in range(magnitudes.size):
        ties[filled] = magnitudes[i]  # always written: no branch to predict
        filled += np.int64(magnitudes[i] >> TRAILING == leading)
    return np.partition(ties[:filled], filled - left)[filled - left]


@numba.njit(nogil=True, cache=True)
def _select(part: np.ndarray, survivors: np.ndarray, k: int, start: int, out: np.ndarray) -> None:
    """Write the k largest among `survivors` to `out`, in ascending position; of those equal to the k-th, the first."""
    magnitudes = np.empty(survivors.size, np.int32)
    for i in range(survivors.size):
        magnitudes[i] = part[survivors[i]] & MAGNITUDE
    kth = _kth(magnitudes, k)
    num_equal = k
    for i in range(survivors.size):
        num_equal -= np.int64(magnitudes[i] > kth)
    filled, i = 0, 0
    while filled < k:  # always written: no branch to predict
        out[filled] = start + survivors[i]
        equal = np.int64(magnitudes[i] == kth) & np.int64(num_equal > 0)
        num_equal -= equal
        filled += np.int64(magnitudes[i] > kth) | equal
        i += 1
