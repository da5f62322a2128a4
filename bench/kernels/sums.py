"""Sums that are bitwise the same in every world."""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from torch import Tensor

from bench.kernels.passes import is_compiled

BLOCK = 4096  # entries whose sums stay in the L1 cache while all rows are added


def sum_in_order(rows: Sequence[Tensor]) -> Tensor:
    """Return the sum of the rows (d,), added in order; the order determines the last bits."""
    total = rows[0].clone()
    for row in rows[1:]:
        total.add_(row)
    return total


def accumulate(total: Tensor, momentum: Tensor, x: Tensor, beta: float) -> Tensor:
    """momentum ← β momentum + x, then total ← total + momentum, in place; all (1, d). Returns `total`."""
    if not (is_compiled(total) and total.is_contiguous() and momentum.is_contiguous() and x.is_contiguous()):
        return total.add_(momentum.mul_(beta).add_(x))
    _accumulate(total.numpy(), momentum.numpy(), x.numpy(), np.float32(beta))
    return total


def wide(t: Tensor) -> Tensor:
    """Return half-precision tensors in single precision, for sums and for what needs more digits."""
    return t.float() if t.dtype.itemsize < 4 else t


def add_levels(levels: Tensor, out: Tensor) -> Tensor:
    """Sum the rows of integers (R, d) int8, into `out` (1, d)."""
    if is_compiled(out) and len(levels) <= 258:  # 258 · 127 fits 16 bits
        _add_levels(levels.numpy(), out.numpy())
        return out
    return out.copy_(levels.sum(dim=0, keepdim=True))


@numba.njit(nogil=True, cache=True)
def _accumulate(total: np.ndarray, momentum: np.ndarray, x: np.ndarray, beta: Any) -> None:
    for i in range(total.shape[1]):
        momentum[0, i] = beta * momentum[0, i] + x[0, i]
        total[0, i] += momentum[0, i]


@numba.njit(nogil=True, cache=True)
def _add_levels(levels: np.ndarray, out: np.ndarray) -> None:
    num_rows, dim = levels.shape
    total = np.empty(BLOCK, np.int16)
    for start in range(0, dim, BLOCK):
        size = min(BLOCK, dim - start)
        total[:] = 0
        for row in range(num_rows):
            part = levels[row, start : start + size]
            for i in range(size):
                total[i] += np.int16(part[i])
        for i in range(size):
            out[0, start + i] = np.float32(total[i])
