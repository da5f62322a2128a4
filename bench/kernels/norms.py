"""Norms of consecutive buckets of a vector: L2, or the largest magnitude. Compiled for float32 on the CPU."""

from collections.abc import Sequence
from typing import Literal

import numba
import numpy as np
import torch
from torch import Tensor
from torch import _foreach_norm as foreach_norm  # pyright: ignore[reportPrivateImportUsage]  of all in a few launches

from bench.kernels.passes import MAGNITUDE, as_array, is_compiled
from bench.kernels.sums import wide

Norm = Literal["l2", "max"]


def norms(x: Tensor, bucket: int, kind: Norm) -> Tensor:
    """Return the norms (⌈n / bucket⌉,) of the buckets of x (n,); NaN or infinite if a bucket has such an entry.

    L2 norms are summed in double precision, where the square of a float32 neither overflows nor underflows.
    """
    if is_compiled(x):
        out = torch.empty(-(-len(x) // bucket))
        if kind == "max":
            _largest(x.detach().view(torch.int32).numpy(), bucket, out.view(torch.int32).numpy())
        else:
            _lengths(x.detach().numpy(), bucket, out.numpy())
        return out
    rows = torch.nn.functional.pad(x, (0, -len(x) % bucket)).view(-1, bucket)
    return rows.abs().amax(dim=1) if kind == "max" else rows.double().norm(dim=1).to(x)


def norms_of_segments(x: Tensor, segments: Sequence[int], kind: Norm) -> Tensor:
    """Return the norms (S,) of consecutive segments of x (n,), as `norms` gives them."""
    if not is_compiled(x):
        parts = [part if len(part) else part.new_zeros(1) for part in x.split(list(segments))]
        of_all = (torch.inf, x.dtype) if kind == "max" else (2, torch.float64)
        return torch.stack(foreach_norm(parts, *of_all)).to(x)
    out, sizes = torch.empty(len(segments)), as_array(tuple(segments), len(x))
    if kind == "max":
        _each_largest(x.detach().view(torch.int32).numpy(), sizes, out.view(torch.int32).numpy())
    else:
        _each_length(x.detach().numpy(), sizes, out.numpy())
    return out


def mean_magnitudes(x: Tensor, segments: Sequence[int]) -> Tensor:
    """Return the mean magnitudes (S,) of consecutive segments of x (n,)."""
    parts = wide(x).split(list(segments))  # in half precision neither sums nor sizes need be finite
    if is_compiled(x):
        return torch.stack([part.abs().mean() for part in parts])
    return (torch.stack(foreach_norm(parts, 1)) / parts[0].new_tensor(segments)).to(x.dtype)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})  # any order of summation, for SIMD
def _lengths(x: np.ndarray, bucket: int, out: np.ndarray) -> None:
    for b in range(out.size):
        part = x[b * bucket : min((b + 1) * bucket, x.size)]
        total = 0.0
        for i in range(part.size):
            value = np.float64(part[i])
            total += value * value
        out[b] = np.sqrt(total)


@numba.njit(nogil=True, cache=True)
def _largest(bits: np.ndarray, bucket: int, out: np.ndarray) -> None:
    """Compare magnitudes as integers, which have the same order; NaN is the largest."""
    for b in range(out.size):
        part = bits[b * bucket : min((b + 1) * bucket, bits.size)]
        largest = np.int32(0)
        for i in range(part.size):
            largest = max(largest, part[i] & MAGNITUDE)
        out[b] = largest


@numba.njit(nogil=True, cache=True)
def _each_length(x: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    first = 0
    for s in range(sizes.size):
        _lengths(x[first : first + sizes[s]], sizes[s], out[s : s + 1])
        first += sizes[s]


@numba.njit(nogil=True, cache=True)
def _each_largest(bits: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    first = 0
    for s in range(sizes.size):
        _largest(bits[first : first + sizes[s]], sizes[s], out[s : s + 1])
        first += sizes[s]
