"""What workers send, and the server: one row a sender, and every bit of it.

A message knows the vector it stands for (`dense`, `sum`, `subtract_from`) and the bytes that carry it (`encode`,
`decode`). `num_bits` is counted on the data that would be encoded, never by a formula beside it; encoding pads
each field to whole bytes, and that padding (below 8 bits a field) is not counted.
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
    """R rows, each standing for a vector of d entries.

    Subclasses are dataclasses. A new kind says how it is encoded and what vectors it stands for (`num_bits`,
    `encode`, `decode`, `dense`); the rest it may say better than here.
    """

    kind: ClassVar[str]
    """How the account names this code, as a broadcast."""

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
        """(R,) int64: bits on the wire for each row, less padding to bytes."""

    @property
    def bound(self) -> Tensor:
        """(R,) float64: bits that messages like these need on average, each part taken as if its entries were drawn.

        k of n positions log₂ C(n, k), levels their entropy, signs one each, floats as they are.
        """
        return self.num_bits.double()

    @abstractmethod
    def encode(self, row: int) -> np.ndarray:
        """One row as uint8 bytes."""

    @abstractmethod
    def decode(self, payloads: Sequence[np.ndarray]) -> "Message":
        """Bytes of several rows -> a message with the same schema as this one, on the same device."""

    @abstractmethod
    def dense(self) -> Tensor:
        """(R, d): the vectors the rows stand for."""

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """(d,): the sum of the rows in rank order, each times its weight (R,) if given."""
        rows = self.dense()
        return sum_in_order(list(rows if weights is None else rows * weights.to(rows)[:, None]))

    def subtract_from(self, x: Tensor) -> Tensor:
        """(R, d) - rows, computed in place of `x`."""
        return x.sub_(self.dense())

    def clear_in(self, x: Tensor) -> Tensor:
        """(R, d) with zeros where the rows have an entry, computed in place of `x`."""
        return x.masked_fill_(self.dense() != 0, 0)

    def finite(self) -> Tensor:
        """(R,) bool: whether what a row was made of is free of NaN and infinity.

        Read off its floats; a message that may lack them must know it.
        """
        floats = [t for t in self.tensors.values() if t.is_floating_point()]
        return torch.stack([finite_rows(t) for t in floats]).all(dim=0)

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """The same schema with other data, as read from a checkpoint."""
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
        """These rows, those at `index` replaced by those of `arrived`; in place where there is room."""
        for name, t in self.tensors.items():
            t[index] = arrived.tensors[name].to(t.device)
        return self

    def followed_by(self, others: Sequence["Message"]) -> "Message":
        """The rows of this message, then those of others of its schema."""
        messages = [self, *others]
        return self.with_tensors({name: torch.cat([m.tensors[name] for m in messages]) for name in self.tensors})


def concatenate(messages: Sequence[Message]) -> Message:
    """The rows of several messages of one schema, in order."""
    first, *others = messages
    return first.followed_by(others) if others else first
