"""Sums that are bitwise the same in every world."""

from collections.abc import Sequence

from torch import Tensor


def sum_in_order(rows: Sequence[Tensor]) -> Tensor:
    """Return the sum of the rows (d,), added in order; the order determines the last bits."""
    total = rows[0].clone()
    for row in rows[1:]:
        total.add_(row)
    return total


def wide(t: Tensor) -> Tensor:
    """Return half-precision tensors in single precision, for sums and for what needs more digits."""
    return t.float() if t.dtype.itemsize < 4 else t
