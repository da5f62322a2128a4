"""Floats on the wire: the bytes that they have in memory."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def finite_rows(x: Tensor) -> Tensor:
    """Return (R,) bool: which rows of (R, n) are free of NaN and infinity. The sum shows both, for one read."""
    if x.sum().isfinite():
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return x.isfinite().all(dim=1)


def bits_of_floats(values: Tensor) -> int:
    """Return the bits of one row of floats (R, n)."""
    return values.shape[1] * 8 * values.element_size()


def scale_segments(x: Tensor, scales: Tensor, segments: Sequence[int]) -> Tensor:
    """Multiply each segment of `x` (R, d) by its scale (R, S), in place."""
    for part, scale in zip(x.split(list(segments), dim=1), scales.T, strict=True):
        part.mul_(scale[:, None])
    return x


def as_bytes(values: Tensor) -> np.ndarray:
    """Return a tensor's bytes in memory."""
    values = values.contiguous().cpu()
    if values.ndim and values.stride(-1) != 1:  # of one entry, where PyTorch keeps any stride
        values = values.clone(memory_format=torch.contiguous_format)
    return values.view(torch.uint8).numpy()


def from_bytes(payload: np.ndarray, like: Tensor) -> Tensor:
    """Invert `as_bytes`: return a vector of `like`'s dtype and device, over the same memory where it is aligned."""
    if not len(payload):
        return like.new_empty(0)
    if payload.ctypes.data % like.element_size():
        payload = payload.copy()
    return torch.from_numpy(payload).view(like.dtype).to(like.device)
