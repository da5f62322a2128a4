"""Lower bounds in bits for messages whose entries are drawn independently: no code needs fewer bits on average."""

from collections.abc import Sequence
from functools import lru_cache
from math import lgamma, log

import torch
from torch import Tensor


@lru_cache(maxsize=16)  # counts may change from round to round
def set_bits(sizes: tuple[int, ...], counts: tuple[int, ...]) -> float:
    """Return Σ log₂ C(n, k): the bits that identify k of n positions, summed over parts."""
    nats = sum(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for n, k in zip(sizes, counts, strict=True))
    return nats / log(2)


def entropies(rows: Tensor, segments: Sequence[int]) -> Tensor:
    """Return for integers (R, d) the sum over segments of length times empirical entropy, (R,) float64 bits.

    That is Σ −log₂ p over all entries, p being the frequency of an entry's value in its segment.
    """
    parts = [row.split(list(segments)) for row in rows]
    return torch.tensor([sum(map(_entropy, row)) for row in parts], dtype=torch.float64)


def _entropy(part: Tensor) -> float:
    counts = torch.bincount(part.int() - int(part.min())).double()
    return float(torch.special.entr(counts / len(part)).sum()) * len(part) / log(2)
