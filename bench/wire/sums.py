"""Sums of sparse rows."""

from torch import Tensor


def sum_of_entries(indices: Tensor, values: Tensor, weights: Tensor | None, dim: int) -> Tensor:
    """Return the sum (d,) of sparse rows with entries (R, k), each row times its weight (R,) if given."""
    values = values if weights is None else values * weights.to(values)[:, None]
    total = values.new_zeros(dim)
    for positions, row in zip(indices, values, strict=True):  # row by row: the same order on every device
        total.index_add_(0, positions, row)
    return total
