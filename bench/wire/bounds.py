"""What information theory asks for a message whose entries are independent draws: no code needs less on average."""

from collections.abc import Sequence
from functools import cache
from math import lgamma, log

import torch
from torch import Tensor


@cache
def set_bits(sizes: tuple[int, ...], counts: tuple[int, ...]) -> float:
    """Σ log₂ C(n, k): to name k of n positions, in each of several parts."""
    nats = sum(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for n, k in zip(sizes, counts, strict=True))
    return nats / log(2)


def entropies(rows: Tensor, segments: Sequence[int]) -> Tensor:
    """(R, d) whole numbers -> (R,) float64, Σ −log₂ of each entry's share in its segment: lengths times entropies."""
    parts = [row.split(list(segments)) for row in rows]
    return torch.tensor([sum(map(_entropy, row)) for row in parts], dtype=torch.float64)


def _entropy(part: Tensor) -> float:
    counts = torch.bincount(part.int() - int(part.min())).double()
    return float(torch.special.entr(counts / len(part)).sum()) * len(part) / log(2)
