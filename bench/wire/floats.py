"""Floats on the wire: as they lie in memory."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def finite_rows(x: Tensor) -> Tensor:
    """(R, n) -> (R,) bool: which rows are free of NaN and infinity. A sum sees both, and costs one read."""
    if x.sum().isfinite():
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return x.isfinite().all(dim=1)


def bits_of_floats(values: Tensor) -> int:
    """(R, n) floats -> the bits that n of them take."""
    return values.shape[1] * 8 * values.element_size()


def scale_segments(x: Tensor, scales: Tensor, segments: Sequence[int]) -> Tensor:
    """(R, d) times (R, S), every segment by its own, computed in place of `x`."""
    for part, scale in zip(x.split(list(segments), dim=1), scales.T, strict=True):
        part.mul_(scale[:, None])
    return x


def as_bytes(values: Tensor) -> np.ndarray:
    """A tensor's memory."""
    return values.contiguous().cpu().view(torch.uint8).numpy()


def from_bytes(payload: np.ndarray, like: Tensor) -> Tensor:
    """A vector of `like`'s dtype and device, from its memory."""
    values = torch.empty(len(payload) // like.element_size(), dtype=like.dtype)
    values.view(torch.uint8).numpy()[:] = payload
    return values.to(like.device)
