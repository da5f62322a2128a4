"""Sums and differences of sparse rows. Compiled for float32 on the CPU."""

import numba
import numpy as np
from torch import Tensor

from bench.kernels.passes import is_compiled


def sum_of_entries(indices: Tensor, values: Tensor, weights: Tensor | None, dim: int) -> Tensor:
    """Return the sum (d,) of sparse rows with entries (R, k), each row times its weight (R,) if given."""
    values = values if weights is None else values * weights.to(values)[:, None]
    total = values.new_zeros(dim)
    if is_compiled(values):
        _add(indices.numpy(), values.numpy(), total.numpy())
        return total
    for positions, row in zip(indices, values, strict=True):  # row by row: the same order on every device
        total.index_add_(0, positions, row)
    return total


def subtract_entries(indices: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """Subtract sparse rows with entries (R, k) from `x` (R, d), in place."""
    if not (is_compiled(x) and x.is_contiguous()):
        return x.scatter_add_(1, indices.long(), -values)
    _subtract(indices.numpy(), values.numpy(), x.numpy())
    return x


def clear_entries(indices: Tensor, x: Tensor) -> Tensor:
    """Set `x` (R, d) to zero at positions (R, k), in place."""
    if not (is_compiled(x) and x.is_contiguous()):
        return x.scatter_(1, indices.long(), 0)
    _clear(indices.numpy(), x.numpy())
    return x


def subtract_and_clear_entries(indices: Tensor, values: Tensor, x: Tensor, y: Tensor) -> None:
    """`subtract_entries` from `x` and `clear_entries` in `y`, in one pass over the positions."""
    if is_compiled(x) and is_compiled(y) and x.is_contiguous() and y.is_contiguous():
        _subtract_and_clear(indices.numpy(), values.numpy(), x.numpy(), y.numpy())
    else:
        subtract_entries(indices, values, x)
        clear_entries(indices, y)


# Positions are read as numbers without a sign: where one may be negative, numba adds a branch to count from the end.


@numba.njit(nogil=True, cache=True)
def _add(indices: np.ndarray, values: np.ndarray, total: np.ndarray) -> None:
    for row in range(indices.shape[0]):
        for i in range(indices.shape[1]):
            total[np.uint64(indices[row, i])] += values[row, i]


@numba.njit(nogil=True, cache=True)
def _subtract(indices: np.ndarray, values: np.ndarray, x: np.ndarray) -> None:
    for row in range(x.shape[0]):
        for i in range(indices.shape[1]):
            x[row, np.uint64(indices[row, i])] -= values[row, i]


@numba.njit(nogil=True, cache=True)
def _subtract_and_clear(indices: np.ndarray, values: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    for row in range(x.shape[0]):
        for i in range(indices.shape[1]):
            position = np.uint64(indices[row, i])
            x[row, position] -= values[row, i]
            y[row, position] = 0


@numba.njit(nogil=True, cache=True)
def _clear(indices: np.ndarray, x: np.ndarray) -> None:
    for row in range(x.shape[0]):
        for i in range(indices.shape[1]):
            x[row, np.uint64(indices[row, i])] = 0
