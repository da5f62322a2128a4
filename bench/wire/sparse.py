"""Sparse messages with the same number of entries in each row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bench.wire.bounds import set_bits
from bench.wire.floats import as_bytes, bits_of_floats, from_bytes
from bench.wire.message import Message
from bench.wire.positions import PositionCode
from bench.wire.ragged import RaggedMessage, joined_rows, ragged, within
from bench.wire.sums import sum_of_entries

COUNT_BITS = 32  # how many entries there are


@dataclass(frozen=True)
class SparsePiece(RaggedMessage):
    """A slice of a `SparseMessage`, in which by chance there are more entries or fewer. `intact` is true throughout:
    values that are not finite are found in the whole message."""

    kind = "sparse"

    @property
    def num_bits(self) -> Tensor:
        return torch.tensor([self._num_bits(row) for row in range(self.num_rows)])

    def _num_bits(self, row: int) -> int:
        indices, values = self.entries(row)
        num_bits = COUNT_BITS + self.bits_of_values(len(values))
        if len(indices):
            num_bits += int(PositionCode((self.dim,), (len(indices),)).num_bits(indices[None].cpu()))
        return num_bits

    def bits_of_values(self, count: int) -> int:
        """What so many entries take besides their positions."""
        return count * 8 * self.values.element_size()

    def encode(self, row: int) -> np.ndarray:
        indices, values = self.entries(row)
        fields = [np.array([len(indices)], ">u4").view(np.uint8), self.encode_values(values)]
        if len(indices):
            fields.append(PositionCode((self.dim,), (len(indices),)).encode(indices))
        return np.concatenate(fields)

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        rows = [self._decoded(payload) for payload in payloads]
        intact = torch.ones(len(rows), dtype=torch.bool, device=self.values.device)
        return replace(self, **ragged(rows, self.values.device), intact=intact)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        count, rest = int(payload[: COUNT_BITS // 8].copy().view(">u4")[0]), payload[COUNT_BITS // 8 :]
        num_bytes = -(-self.bits_of_values(count) // 8)
        values = self.decode_values(rest[:num_bytes], count)
        if not count:
            return torch.empty(0, dtype=torch.int64), values
        return PositionCode((self.dim,), (count,)).decode(rest[num_bytes:]), values

    def encode_values(self, values: Tensor) -> np.ndarray:
        """(k,) as bytes."""
        return as_bytes(values)

    def decode_values(self, payload: np.ndarray, count: int) -> Tensor:
        """The inverse of `encode_values`, on the CPU."""
        return from_bytes(payload, self.values.new_empty(0, device="cpu"))


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
    cuttable = True
    piece: ClassVar[type[SparsePiece]] = SparsePiece
    """What it is cut into."""

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

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        rows = list(zip(self.indices, self.values, strict=True))
        intact = torch.ones(len(rows), dtype=torch.bool, device=self.values.device)
        cut = [(within(rows, start, end, self.values.device), end - start) for start, end in pairwise(bounds)]
        return [self.piece(**entries, intact=intact, dim=dim) for entries, dim in cut]

    def joined(self, pieces: Sequence[Message]) -> Self:
        indices, values = (torch.stack(column) for column in zip(*joined_rows(pieces), strict=True))
        return replace(self, indices=indices, values=values)

    def dense(self) -> Tensor:
        return self.values.new_zeros(len(self.values), self.dim).scatter_(1, self.indices, self.values)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return sum_of_entries(self.indices, self.values, weights, self.dim)

    def subtract_from(self, x: Tensor) -> Tensor:
        return x.scatter_add_(1, self.indices, -self.values)

    def clear_in(self, x: Tensor) -> Tensor:
        return x.scatter_(1, self.indices, 0)
