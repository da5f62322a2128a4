"""Compiled passes over quantized vectors: levels times the scale of their bucket, and a uniform grid.

Compiled for float32 on the CPU; other tensors use torch operations with the same results.
"""

from typing import Any

import numba
import numpy as np
from torch import Tensor

from bench.kernels.passes import as_array, is_compiled, spread
from bench.kernels.sums import wide


def expand(levels: Tensor, scales: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return levels (R, d) times the scale (R, B) of their bucket, in consecutive buckets of these sizes."""
    if not is_compiled(scales):
        return spread(scales, sizes).mul_(levels)
    out = scales.new_empty(levels.shape)
    for row in range(len(levels)):
        _expand(levels[row].numpy(), scales[row].numpy(), as_array(sizes, levels.shape[1]), out[row].numpy())
    return out


def sum_expanded(levels: Tensor, scales: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the sum (d,) of the rows that `expand` gives, added in order; float32 on the CPU."""
    out = scales.new_empty(levels.shape[1])
    _sum_expanded(levels.numpy(), scales.contiguous().numpy(), as_array(sizes, levels.shape[1]), out.numpy())
    return out


def to_grid(x: Tensor, radii: Tensor, sizes: tuple[int, ...], num_steps: int, out: Tensor) -> None:
    """Write the nearest of the grid's points 0 to `num_steps`, between −radius and radius, for x (n,) to `out` (n,).

    `radii`: (S,), of consecutive segments of these sizes.
    """
    if is_compiled(x):
        arrays = x.detach().numpy(), radii.numpy(), as_array(sizes, len(x))
        _to_grid(*arrays, np.float32(num_steps / 2), np.float32(num_steps), out.numpy())
        return
    scaled = wide(x) / spread(radii.where(radii > 0, 1), sizes)  # in [−1, 1]; zeros stay zero
    nearest = scaled.add_(1).mul_(num_steps / 2).add_(0.5).floor_()
    out.copy_(nearest.nan_to_num_(0).clamp_(max=num_steps))


@numba.njit(nogil=True, cache=True)
def _expand(levels: np.ndarray, scales: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    first = 0
    for b in range(sizes.size):
        scale, part, written = scales[b], levels[first : first + sizes[b]], out[first : first + sizes[b]]
        for i in range(part.size):
            written[i] = scale * np.float32(part[i])
        first += sizes[b]


@numba.njit(nogil=True, cache=True)
def _sum_expanded(levels: np.ndarray, scales: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    first = 0
    for b in range(sizes.size):
        end = first + sizes[b]
        for start in range(first, end, 4096):  # entries whose sums stay in the L1 cache
            total = out[start : min(start + 4096, end)]
            for row in range(levels.shape[0]):
                scale, part = scales[row, b], levels[row, start : start + total.size]
                if row == 0:
                    for i in range(total.size):
                        total[i] = scale * np.float32(part[i])
                else:
                    for i in range(total.size):
                        total[i] += scale * np.float32(part[i])
        first = end


@numba.njit(nogil=True, cache=True)
def _to_grid(x: np.ndarray, radii: np.ndarray, sizes: np.ndarray, half: Any, most: Any, out: np.ndarray) -> None:
    first = 0
    for s in range(sizes.size):
        divisor = radii[s] if radii[s] > 0 else np.float32(1)
        part, written = x[first : first + sizes[s]], out[first : first + sizes[s]]
        for i in range(part.size):
            nearest = np.floor((part[i] / divisor + np.float32(1)) * half + np.float32(0.5))
            written[i] = np.uint8(min(nearest, most)) if nearest >= 0 else np.uint8(0)  # NaN becomes 0
        first += sizes[s]
