"""Sums whose last bits every world agrees on."""

from collections.abc import Sequence

from torch import Tensor


def sum_in_order(rows: Sequence[Tensor]) -> Tensor:
    """(d,): the rows (d,) added up one after another; the order decides the last bits."""
    total = rows[0].clone()
    for row in rows[1:]:
        total.add_(row)
    return total


def wide(t: Tensor) -> Tensor:
    """Half precision is for products; what is added up, or needs more digits, is in single."""
    return t.float() if t.dtype.itemsize < 4 else t
