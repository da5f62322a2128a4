"""Statistics of the small entries of a vector. Compiled for float32 on the CPU."""

from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from bench.kernels.passes import is_compiled

LARGEST = float(np.finfo(np.float32).max)


class Tail(NamedTuple):
    """Statistics of the entries of a part (n,) whose magnitude is below a threshold; NaN and infinity never are."""

    num_above: int
    sum: float  # Σ |x| below
    squares: float  # Σ x² below
    num_zeros: int


def tail_of(x: Tensor, threshold: float) -> Tail:
    """Return the tail of a part (n,) below a threshold."""
    if is_compiled(x):
        threshold = np.inf if threshold > LARGEST else threshold  # which float32 does not tell apart
        return Tail(*_tail(x.detach().numpy(), np.float32(threshold)))
    magnitudes = x.abs()
    below = magnitudes < threshold
    rest = torch.where(below, magnitudes, 0).double()
    num_below, num_zeros = int(below.sum()), int((x == 0).sum())
    return Tail(len(x) - num_below, float(rest.sum()), float(rest.square().sum()), num_zeros)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})  # any order of summation, for SIMD
def _tail(x: np.ndarray, threshold: Any) -> tuple[int, float, float, int]:
    num_above, total, squares, num_zeros = 0, 0.0, 0.0, 0
    for i in range(x.size):
        magnitude = abs(x[i])
        below = magnitude < threshold
        value = np.float64(magnitude) if below else 0.0
        total += value
        squares += value * value
        num_above += not below
        num_zeros += magnitude == 0
    return num_above, total, squares, num_zeros
