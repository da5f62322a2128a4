"""What workers and the server send: one row per sender, with its size in bits.

A message gives the vectors that it represents (`dense`, `sum`, `subtract_from`) and its bytes (`encode`, `decode`).
`num_bits` is counted on the data to encode, never by a separate formula. Encoding pads each field to whole bytes; this
padding (below 8 bits per field) is not counted.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bench.kernels.sums import sum_in_order
from bench.wire.floats import finite_rows


class Message(ABC):
    """R rows, each representing a vector of d entries.

    Subclasses are dataclasses. A new kind must define its encoding and its vectors (`num_bits`, `encode`, `decode`,
    `dense`); it may override the other methods with faster ones.
    """

    kind: ClassVar[str]
    """The ledger's name for a broadcast in this code."""

    fixed_size: ClassVar[bool] = False
    """Whether all messages of one schema take as many bytes, so that the size need not be told."""

    values_add_up: ClassVar[bool] = False
    """Whether the sum of the rows' `values`, added in order, is the `values` of their sum."""

    cuttable: ClassVar[bool] = False
    """Whether there are `cut` and `joined`."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that make up the message, R rows each, by attribute name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore[reportArgumentType]
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def num_rows(self) -> int:
        """R."""
        return len(next(iter(self.tensors.values())))

    @property
    @abstractmethod
    def num_bits(self) -> Tensor:
        """(R,) int64: bits on the wire for each row, without padding to bytes."""

    @property
    def bound(self) -> Tensor:
        """(R,) float64: bits that such messages need on average, if the entries of each part are independent draws.

        log₂ C(n, k) for k of n positions, the entropy for levels, one bit per sign, the full size for floats. A message
        that does not override it counts as its own bound, and `bits_over_bound` as 1.
        """
        return self.num_bits.double()

    @abstractmethod
    def encode(self, row: int) -> np.ndarray:
        """Encode one row as uint8 bytes."""

    @abstractmethod
    def decode(self, payloads: Sequence[np.ndarray]) -> "Message":
        """Decode the bytes of several rows to a message with the schema and device of this one."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the vectors that the rows represent, (R, d)."""

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Return the sum (d,) of the rows in rank order, each times its weight (R,) if given."""
        rows = self.dense()
        return sum_in_order(list(rows if weights is None else rows * weights.to(rows)[:, None]))

    def subtract_from(self, x: Tensor) -> Tensor:
        """Subtract the rows from `x` (R, d), in place."""
        return x.sub_(self.dense())

    def clear_in(self, x: Tensor) -> Tensor:
        """Set `x` (R, d) to zero where the rows have an entry, in place."""
        return x.masked_fill_(self.dense() != 0, 0)

    def subtract_and_clear(self, x: Tensor, y: Tensor) -> None:
        """`subtract_from(x)` and `clear_in(y)`."""
        self.subtract_from(x)
        self.clear_in(y)

    def finite(self) -> Tensor:
        """Return (R,) bool: whether the vector from which a row was made is free of NaN and infinity.

        Determined from the message's floats; a message whose floats may not show it must override this.
        """
        floats = [t for t in self.tensors.values() if t.is_floating_point()]
        return torch.stack([finite_rows(t) for t in floats]).all(dim=0)

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """Return a message of the same schema with other data, as read from a checkpoint."""
        return replace(self, **tensors)  # pyright: ignore[reportArgumentType]: every subclass is a dataclass

    def cut(self, bounds: Sequence[int]) -> "list[Message]":
        """The same rows over the entries from each bound to the next, one message a slice.

        Args:
            bounds: ascending from 0 to d, all but d multiples of 8.
        """
        raise NotImplementedError(f"{self.kind} messages cannot be cut")

    def joined(self, pieces: "Sequence[Message]") -> "Message":
        """The inverse of `cut`: messages over consecutive slices, made one. `self`: of the same schema."""
        raise NotImplementedError(f"{self.kind} messages cannot be cut")

    def put(self, index: Sequence[int], arrived: "Message") -> Self:
        """Return this message with the rows at `index` replaced by those of `arrived`; in place if there is room."""
        for name, t in self.tensors.items():
            t[index] = arrived.tensors[name].to(t)  # old states hold wider integers
        return self

    def rows(self) -> Sequence[Self]:
        """Return each row as a message of its own, over the same memory: the inverse of `concatenate`."""
        if self.num_rows == 1:
            return [self]
        columns = {name: t.split(1) for name, t in self.tensors.items()}
        return [self.with_tensors({name: rows[row] for name, rows in columns.items()}) for row in range(self.num_rows)]

    def followed_by(self, others: Sequence["Message"]) -> "Message":
        """Return the rows of this message followed by those of others of the same schema."""
        messages = [self, *others]
        return self.with_tensors({name: _stacked([m.tensors[name] for m in messages]) for name in self.tensors})


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """The rows of several tensors: without a copy where they lie one after another in memory."""
    first, end = rows[0], 0
    for each in rows:
        if end and (each.data_ptr() != end or not each.is_contiguous()):
            return torch.cat(list(rows))
        end = each.data_ptr() + each.nbytes
    shape = (sum(map(len, rows)), *first.shape[1:])
    if first.untyped_storage().data_ptr() != rows[-1].untyped_storage().data_ptr() or not first.is_contiguous():
        return torch.cat(list(rows))
    return first.as_strided(shape, first.stride(), first.storage_offset())


def concatenate(messages: Sequence[Message]) -> Message:
    """Return the rows of several messages of one schema, in order."""
    first, *others = messages
    return first.followed_by(others) if others else first
