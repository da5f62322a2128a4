"""Sparse messages with the same number of entries in each row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bench.wire.bounds import set_bits
from bench.wire.floats import as_bytes, bits_of_floats, finite_rows
from bench.wire.integers import Code
from bench.wire.message import Message
from bench.wire.positions import PositionCode, make_position_code
from bench.wire.ragged import RaggedMessage, joined_rows, ragged, within
from bench.wire.reader import Reader
from bench.wire.sums import clear_entries, subtract_and_clear_entries, subtract_entries, sum_of_entries

COUNT_BITS = 32  # how many entries there are


def chosen_entries(x: Tensor, chosen: Tensor, code: Code | None = None) -> "SparsePiece":
    """A message of some entries of each row, as many as there are.

    Args:
        x: (R, d).
        chosen: (R, d) bool.
        code: of the positions.
    """
    rows = [(where := mask.nonzero()[:, 0], row[where]) for row, mask in zip(x, chosen, strict=True)]
    return SparsePiece(**ragged(rows, x.device), intact=finite_rows(x), dim=x.shape[1], code=code)


@dataclass(frozen=True)
class SparsePiece(RaggedMessage):
    """Entries of which there may be another number in each row: what `chosen_entries` gives, or a slice of a
    `SparseMessage`, whose `intact` is always true, as values that are not finite are found in the whole message.
    `code`: of the positions."""

    code: Code | None = None
    kind = "sparse"

    @property
    def num_bits(self) -> Tensor:
        return torch.tensor([self._num_bits(row) for row in range(self.num_rows)])

    def _num_bits(self, row: int) -> int:
        indices, values = self.entries(row)
        num_bits = COUNT_BITS + self.bits_of_values(len(values))
        if len(indices):
            num_bits += int(self._positions(len(indices)).num_bits(indices[None].cpu()))
        return num_bits

    @property
    def bound(self) -> Tensor:
        counts = self.counts.tolist()
        bits = [self.bits_of_values(k) + (float(set_bits((self.dim,), (k,))) if k else 0.0) for k in counts]
        return torch.tensor(bits, dtype=torch.float64)

    def _positions(self, count: int) -> PositionCode:
        return make_position_code((self.dim,), (count,), self.code)

    def bits_of_values(self, count: int) -> int:
        """Return the bits of this many entries, without their positions."""
        return count * 8 * self.values.element_size()

    def encode(self, row: int) -> np.ndarray:
        indices, values = self.entries(row)
        fields = [np.array([len(indices)], ">u4").view(np.uint8), self.encode_values(values)]
        if len(indices):
            fields.append(self._positions(len(indices)).encode(indices))
        return np.concatenate(fields)

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        rows = [self.decoded(Reader(payload)) for payload in payloads]
        intact = torch.ones(len(rows), dtype=torch.bool, device=self.values.device)
        return replace(self, **ragged(rows, self.values.device), intact=intact)

    def decoded(self, reader: Reader) -> tuple[Tensor, Tensor]:
        """The positions and values that make up the rest of a payload, on the CPU."""
        count = reader.number(self.dim, "number of entries")
        values = self.decode_values(reader, count)
        indices = torch.empty(0, dtype=torch.int64)
        if count:
            indices = self._positions(count).read(reader)
        reader.end()
        return indices, values

    def encode_values(self, values: Tensor) -> np.ndarray:
        """(k,) as bytes."""
        return as_bytes(values)

    def decode_values(self, reader: Reader, count: int) -> Tensor:
        """The inverse of `encode_values`, on the CPU."""
        return reader.floats(count, self.values.new_empty(0, device="cpu"), "values")


@dataclass(frozen=True)
class SparseMessage(Message):
    """Entries at some positions; the others are zero.

    `indices`: (R, k) int32 or int64, ascending, distinct. `values`: (R, k). `code`: encodes the positions. `dim`: d.
    """

    indices: Tensor
    values: Tensor
    code: PositionCode
    dim: int
    kind = "sparse"
    cuttable = True
    piece: ClassVar[type[SparsePiece]] = SparsePiece
    """The kind of its slices."""

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
        indices, values = (torch.stack(column) for column in zip(*map(self._decoded, payloads), strict=True))
        return replace(self, indices=indices.to(self.indices), values=values)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        reader = Reader(payload)
        values = self.decode_values(reader)
        indices = self.code.read(reader)
        reader.end()
        return indices, values

    def decode_values(self, reader: Reader) -> Tensor:
        """The values (k,) of a row."""
        return reader.floats(self.values.shape[1], self.values, "values")

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        rows = list(zip(self.indices.long(), self.values, strict=True))
        intact = torch.ones(len(rows), dtype=torch.bool, device=self.values.device)
        cut = [(within(rows, start, end, self.values.device), end - start) for start, end in pairwise(bounds)]
        return [self.piece(**entries, intact=intact, dim=dim, code=self.code.name) for entries, dim in cut]

    def joined(self, pieces: Sequence[Message]) -> Self:
        indices, values = (torch.stack(column) for column in zip(*joined_rows(pieces), strict=True))
        return replace(self, indices=indices.to(self.indices), values=values)

    def dense(self) -> Tensor:
        return self.values.new_zeros(len(self.values), self.dim).scatter_(1, self.indices.long(), self.values)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return sum_of_entries(self.indices, self.values, weights, self.dim)

    def subtract_from(self, x: Tensor) -> Tensor:
        return subtract_entries(self.indices, self.values, x)

    def clear_in(self, x: Tensor) -> Tensor:
        return clear_entries(self.indices, x)

    def subtract_and_clear(self, x: Tensor, y: Tensor) -> None:
        subtract_and_clear_entries(self.indices, self.values, x, y)
