"""Memory alignment of tensors, which can change the last bit of a result.

The rounding of matrix products may depend on the address of their operands. A worker's part of a joint tensor must give
bitwise the result that the same numbers give in a separate process, where they begin a tensor and so a cache line.
"""

from torch import Tensor

CACHE_LINE = 64  # bytes; PyTorch aligns every tensor that it allocates to this


def is_aligned(t: Tensor) -> bool:
    """Return whether `t` begins a cache line."""
    return t.data_ptr() % CACHE_LINE == 0


def aligned(t: Tensor) -> Tensor:
    """Return `t` if it begins a cache line, else a copy that does."""
    return t if is_aligned(t) else t.clone()


def aligned_zeros(num_rows: int, dim: int, like: Tensor) -> Tensor:
    """Return zeros (R, d) of `like`'s dtype and device, every row beginning a cache line."""
    step = CACHE_LINE // like.element_size()
    return like.new_zeros(num_rows, -(-dim // step) * step)[:, :dim]
