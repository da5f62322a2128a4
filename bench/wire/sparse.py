"""Sparse messages with the same number of entries in each row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from bench.wire.bounds import set_bits
from bench.wire.floats import as_bytes, bits_of_floats, from_bytes
from bench.wire.message import Message
from bench.wire.positions import PositionCode


@dataclass(frozen=True)
class SparseMessage(Message):
    """Entries at some positions; the others are zero.

    `indices`: (R, k) int64, ascending, distinct. `values`: (R, k). `code`: encodes the positions. `dim`: d.
    """

    indices: Tensor
    values: Tensor
    code: PositionCode
    dim: int
    kind = "sparse"

    @property
    def num_bits(self) -> Tensor:
        return self.code.num_bits(self.indices) + self.bits_of_values

    @property
    def bits_of_values(self) -> int:
        """The bits of a row besides its positions."""
        return bits_of_floats(self.values)

    @property
    def bound(self) -> Tensor:
        bits_of_positions = set_bits(self.code.segments, self.code.counts)
        return torch.full((self.num_rows,), bits_of_positions + self.bits_of_values, dtype=torch.float64)

    def encode(self, row: int) -> np.ndarray:
        return np.concatenate([as_bytes(self.values[row]), self.code.encode(self.indices[row])])

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        num_bytes = self.values.shape[1] * self.values.element_size()
        values = torch.stack([from_bytes(p[:num_bytes], self.values) for p in payloads])
        indices = torch.stack([self.code.decode(p[num_bytes:]) for p in payloads])
        return replace(self, indices=indices.to(self.indices.device), values=values)

    def dense(self) -> Tensor:
        return self.values.new_zeros(len(self.values), self.dim).scatter_(1, self.indices, self.values)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return sum_of_entries(self.indices, self.values, weights, self.dim)

    def subtract_from(self, x: Tensor) -> Tensor:
        return x.scatter_add_(1, self.indices, -self.values)

    def clear_in(self, x: Tensor) -> Tensor:
        return x.scatter_(1, self.indices, 0)


def sum_of_entries(indices: Tensor, values: Tensor, weights: Tensor | None, dim: int) -> Tensor:
    """Return the sum (d,) of sparse rows with entries (R, k), each row times its weight (R,) if given."""
    values = values if weights is None else values * weights.to(values)[:, None]
    total = values.new_zeros(dim)
    for positions, row in zip(indices, values, strict=True):  # row by row: the same order on every device
        total.index_add_(0, positions, row)
    return total
