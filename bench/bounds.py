"""What information theory asks for a message: the bits below which no code for its kind comes on average."""

from collections.abc import Sequence
from functools import cache
from math import lgamma, log

import torch
from torch import Tensor


@cache
def set_bits(sizes: Sequence[int], counts: Sequence[int]) -> float:
    """Σ log₂ C(n, k): to name k of n positions, in each of several parts. Both are tuples."""
    nats = sum(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for n, k in zip(sizes, counts, strict=True))
    return nats / log(2)


def entropies(rows: Tensor) -> Tensor:
    """(R, d) whole numbers -> (R,) float64, Σ −log₂ of each entry's share in its row: d times the entropy."""
    return torch.tensor([_entropy(row) for row in rows], dtype=torch.float64)


def _entropy(row: Tensor) -> float:
    counts = torch.bincount(row.int() - int(row.min())).double()
    return float(torch.special.entr(counts / len(row)).sum()) * len(row) / log(2)
