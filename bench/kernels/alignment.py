"""Where tensors begin in memory, which can decide the last bit.

Matrix products may round by the address of their operands. A worker's part of a joint tensor must give the bits that
the same numbers give in a process of its own, where they begin a tensor, and with it a cache line.
"""

from torch import Tensor

CACHE_LINE = 64  # bytes; where PyTorch lets every tensor of its own begin


def is_aligned(t: Tensor) -> bool:
    """Whether `t` begins a cache line."""
    return t.data_ptr() % CACHE_LINE == 0


def aligned(t: Tensor) -> Tensor:
    """`t`, or a copy of it that begins a cache line."""
    return t if is_aligned(t) else t.clone()


def aligned_zeros(num_rows: int, dim: int, like: Tensor) -> Tensor:
    """(R, d) zeros of `like`'s dtype and device, every row beginning a cache line."""
    step = CACHE_LINE // like.element_size()
    return like.new_zeros(num_rows, -(-dim // step) * step)[:, :dim]
