"""A random number for every entry of a vector: a hash of a key and the entry's position.

The numbers do not depend on each other, so any order, block or device gives the same ones, and a pass over a vector
draws while it reads (the idea of Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011). The
hash has the form of MurmurHash3's finaliser; half of the key enters before its first round, the other half after it.

Compiled for float32 on the CPU; other tensors use torch operations with the same results.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from bench.kernels.passes import as_array, is_compiled, spread
from bench.kernels.sums import wide

Key = tuple[int, int]
"""Two numbers below 2³², from `Noise.key`."""

FIRST, SECOND, THIRD = 0x7FEB352D, 0x846CA68B, 0x9E3779B1
STEP = 2.0**-31
BLOCK = 256  # entries that are decided before the positions of the chosen ones are written

_32 = np.uint32


@numba.njit(inline="always")
def hashed(position: Any, low: Any, high: Any) -> Any:
    """Return 32 random bits for an entry."""
    x = _32(_32(position) ^ low)
    x = _32(x ^ _32(x >> _32(16)))
    x = _32(x * _32(FIRST))
    x = _32(x ^ _32(x >> _32(15)))
    x = _32(x ^ high)
    x = _32(x ^ _32(x >> _32(16)))
    x = _32(x * _32(SECOND))
    x = _32(x ^ _32(x >> _32(15)))
    x = _32(x * _32(THIRD))
    return _32(x ^ _32(x >> _32(16)))


@numba.njit(inline="always")
def uniform(position: Any, low: Any, high: Any) -> Any:
    """Return the number of an entry, float32 in (0, 1], in steps of 2⁻³¹ where float32 resolves them."""
    return (np.float32(np.int32(hashed(position, low, high) >> _32(1))) + np.float32(0.5)) * np.float32(STEP)


def hashes(key: Key, num_entries: int, device: torch.device, start: int = 0) -> Tensor:
    """Return `hashed` of n entries from `start` on, (n,) int64, in torch operations."""
    low, high = key
    x = torch.arange(start, start + num_entries, device=device) ^ low
    x = _times(x ^ (x >> 16), FIRST)
    x = x ^ (x >> 15) ^ high
    x = _times(x ^ (x >> 16), SECOND)
    x = _times(x ^ (x >> 15), THIRD)
    return x ^ (x >> 16)


def uniforms(key: Key, num_entries: int, device: torch.device, start: int = 0) -> Tensor:
    """Return `uniform` of n entries from `start` on, (n,) float32, in torch operations."""
    return ((hashes(key, num_entries, device, start) >> 1).float() + 0.5) * STEP


def drawn(x: Tensor, segments: Sequence[int], scales: Tensor, key: Key, start: int = 0) -> tuple[Tensor, Tensor]:
    """Draw entries, each with probability p_i = min(|x_i| / scale, 1).

    Args:
        x: (n,) a part of a vector. A zero is never drawn; an entry of magnitude at least its scale always is.
        segments: sizes, adding up to n.
        scales: (S,) of the segments, at least 0. Of a segment whose scale is NaN nothing is drawn.
        key: of the draws.
        start: where the part begins in the vector.

    Returns:
        the ascending positions (k,) in the part, and x_i / p_i (k,): x_i itself, or ±scale.
    """
    if not is_compiled(x):
        magnitudes, numbers = x.abs(), uniforms(key, len(x), x.device, start)
        scale = spread(scales, segments)
        positions = ((magnitudes >= numbers * scale) & (magnitudes > 0)).nonzero()[:, 0]
        values, raised = x[positions], scale[positions]
        return positions, torch.where(values.abs() >= raised, values, raised.copysign(values))
    positions, values = torch.empty(len(x) + 1, dtype=torch.int64), torch.empty(len(x) + 1)  # only written pages count
    arrays = x.detach().numpy(), as_array(segments, len(x)), scales.numpy()
    count = _draw(*arrays, *_as_arguments(key), start, positions.numpy(), values.numpy())
    return positions[:count].clone(), values[:count].clone()


def quantized(
    x: Tensor,
    norms: Tensor,
    sizes: Sequence[int],
    num_levels: int,
    key: Key,
    start: int,
    out: Tensor,
    limits: Tensor | None = None,
) -> None:
    """Write sign(x_i) l_i to `out`, where l_i is s|x_i| / ‖x‖ rounded up or down at random, without bias.

    Args:
        x: (n,) a part of a vector.
        norms: (B,) of the buckets of this part.
        sizes: of the buckets, adding up to n.
        num_levels: s.
        key: of the draws.
        start: where the part begins in the vector.
        out: (n,) integers.
        limits: (B,) to which magnitudes are clipped; the norms, if None.
    """
    limits = norms if limits is None else limits
    if is_compiled(x):
        arrays = x.detach().numpy(), norms.numpy(), limits.numpy(), as_array(sizes, len(x)), np.float32(num_levels)
        _quantize(*arrays, *_as_arguments(key), start, out.numpy())
        return
    limit, norm = (spread(wide(t).where(norms > 0, 1), sizes) for t in (limits, norms))
    ratio = torch.minimum(wide(x).abs(), limit) / norm * num_levels
    level = ratio.floor()
    level += uniforms(key, len(x), x.device, start) <= ratio - level
    out.copy_(level.copysign(x))


def powers(x: Tensor, key: Key, out: Tensor) -> None:
    """Round |x_i| at random and without bias to an adjacent power of two 2^(e − 127); write e to `out`, 0 for x_i = 0.

    A random number of as many bits is added to the mantissa; a carry raises the exponent by one.

    Args:
        x: (n,) float32. Magnitudes above 2¹²⁷, the largest power, become 2¹²⁷.
        key: of the draws.
        out: (n,) uint8.
    """
    if is_compiled(x):
        _powers(x.detach().numpy().view(np.int32), *_as_arguments(key), out.numpy())
        return
    magnitudes = x.view(torch.int32).long() & 0x7FFFFFFF
    out.copy_(((magnitudes + (hashes(key, len(x), x.device) >> 9)) >> 23).clamp_(max=254))


def _as_arguments(key: Key) -> tuple[np.uint32, np.uint32]:
    return _32(key[0]), _32(key[1])


@numba.njit(nogil=True, cache=True)
def _draw(
    x: np.ndarray,
    sizes: np.ndarray,
    scales: np.ndarray,
    low: Any,
    high: Any,
    start: int,
    positions: np.ndarray,
    values: np.ndarray,
) -> Any:
    flags = np.zeros(BLOCK, np.uint8)
    eights = flags.view(np.uint64)  # eight flags at once; most are zero and skipped
    count, end = 0, 0
    for s in range(sizes.size):
        begin, end, scale = end, end + sizes[s], scales[s]
        for first in range(begin, end, BLOCK):
            part = x[first : min(first + BLOCK, end)]
            for i in range(part.size):
                magnitude = abs(part[i])
                flags[i] = (magnitude >= uniform(start + first + i, low, high) * scale) & (magnitude > 0)
            flags[part.size :] = 0
            drawn = count
            for e in range(eights.size):
                if eights[e]:
                    for i in range(8 * e, 8 * e + 8):  # always written: no branch to predict
                        positions[count] = first + i
                        count += np.int64(flags[i])
            for j in range(drawn, count):
                value = x[positions[j]]
                values[j] = np.copysign(max(abs(value), scale), value)
    return count


@numba.njit(nogil=True, cache=True)
def _quantize(
    x: np.ndarray,
    norms: np.ndarray,
    limits: np.ndarray,
    sizes: np.ndarray,
    num_levels: Any,
    low: Any,
    high: Any,
    start: int,
    out: np.ndarray,
) -> None:
    end = 0
    for b in range(sizes.size):
        first, end = end, end + sizes[b]
        part, levels = x[first:end], out[first:end]
        norm, limit = (norms[b], limits[b]) if norms[b] > 0 else (np.float32(1), np.float32(1))
        for i in range(part.size):
            ratio = min(abs(part[i]), limit) / norm * num_levels
            level = np.int32(ratio)
            level += np.int32(uniform(start + first + i, low, high) <= ratio - np.float32(level))
            levels[i] = -level if part[i] < 0 else level


@numba.njit(nogil=True, cache=True)
def _powers(x: np.ndarray, low: Any, high: Any, out: np.ndarray) -> None:
    for i in range(x.size):
        carried = _32(_32(x[i] & np.int32(0x7FFFFFFF)) + _32(hashed(i, low, high) >> _32(9)))
        out[i] = min(_32(carried >> _32(23)), _32(254))


def _times(x: Tensor, factor: int) -> Tensor:
    """Return the product modulo 2³² of integers below 2³²; int64 may overflow, which preserves the low bits."""
    return (x * factor) & 0xFFFFFFFF
