"""Uncompressed messages: stored as a matrix, or written from gradients on demand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from bench.wire.columnar import Columnar
from bench.wire.floats import as_bytes
from bench.wire.message import Message
from bench.wire.reader import Reader


@dataclass(frozen=True)
class FloatMessage(Message):
    """Only floats, with the bytes that they have in memory. `values`: (R, S)."""

    values: Tensor
    fixed_size = True

    @property
    def num_bits(self) -> Tensor:
        num_rows, num_values = self.values.shape
        return torch.full((num_rows,), num_values * 8 * self.values.element_size())

    def encode(self, row: int) -> np.ndarray:
        return as_bytes(self.values[row])

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        rows = [self._decoded(Reader(payload)) for payload in payloads]
        return replace(self, values=torch.stack(rows) if len(rows) > 1 else rows[0][None])

    def _decoded(self, reader: Reader) -> Tensor:
        values = reader.floats(self.values.shape[1], self.values, "values")
        reader.end()
        return values


@dataclass(frozen=True)
class DenseMessage(FloatMessage, Columnar):
    """Every entry, uncompressed. `values`: (R, d)."""

    kind = "dense"
    values_add_up = True
    of_entries = ("values",)

    def dense(self) -> Tensor:
        return self.values

    def followed_by(self, others: Sequence[Message]) -> Message:
        """Without a copy where the rows already lie one after another."""
        place, storage, num_rows = self.values.data_ptr(), self.values.untyped_storage().data_ptr(), 0
        for values in (message.tensors["values"] for message in (self, *others)):
            is_next = values.data_ptr() == place and values.untyped_storage().data_ptr() == storage
            if not (is_next and values.is_contiguous()):
                return super().followed_by(others)
            place, num_rows = place + values.nbytes, num_rows + len(values)
        dim = self.values.shape[1]
        return replace(self, values=self.values.as_strided((num_rows, dim), (dim, 1)))

    def put(self, index: Sequence[int], arrived: Message) -> Self:
        assert isinstance(arrived, DenseMessage | GradientMessage)
        for row, into in enumerate(index):
            arrived.write(row, self.values[into])
        return self

    def write(self, row: int, out: Tensor) -> None:
        """Copy one row to `out` (d,)."""
        out.copy_(self.values[row])


class Rows(Protocol):
    """Writes vectors (d,) on demand, such as the gradients that an engine keeps factored."""

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Return these rows, (R', d), written to `out` if given."""
        ...

    def sum(self, rows: Tensor) -> Tensor:
        """Return the sum (d,) of these rows, added in order."""
        ...

    def finite(self) -> Tensor:
        """Return (R,) bool: which rows are free of NaN and infinity."""
        ...


@dataclass(frozen=True)
class GradientMessage(Message):
    """A `DenseMessage` whose rows are gradients not yet written out.

    Each row is written when it is read: into the sum, the server's last messages or the wire. The matrix (R, d) is
    never filled, which saves half of the time of a dense round.
    """

    gradients: Rows
    picked: Tensor  # (R,) rows of `gradients`
    like: Tensor  # (d,)
    kind = "dense"
    cuttable = True

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.dense()}

    @property
    def num_rows(self) -> int:
        return len(self.picked)

    @property
    def num_bits(self) -> Tensor:
        return torch.full((self.num_rows,), self.like.numel() * 8 * self.like.element_size())

    def encode(self, row: int) -> np.ndarray:
        return as_bytes(self.gradients.dense(self.picked[row, None])[0])

    def decode(self, payloads: Sequence[np.ndarray]) -> DenseMessage:
        return DenseMessage(self.like[None]).decode(payloads)

    def dense(self) -> Tensor:
        return self.gradients.dense(self.picked)

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        return DenseMessage(self.dense()).cut(bounds)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return self.gradients.sum(self.picked) if weights is None else super().sum(weights)

    def finite(self) -> Tensor:
        return self.gradients.finite()[self.picked]

    def write(self, row: int, out: Tensor) -> None:
        """Write one row to `out` (d,)."""
        self.gradients.dense(self.picked[row, None], out=out[None])
