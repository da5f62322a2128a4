"""What workers send, and the server: one row a sender, and every bit of it.

A message knows the vector it stands for (`dense`, `sum`, `subtract_from`) and the bytes that carry it (`encode`,
`decode`). `num_bits` is counted on the data that would be encoded, never by a formula beside it; encoding pads
each field to whole bytes, and that padding (below 8 bits a field) is not counted.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.bounds import set_bits
from bench.engines.base import WorkerGradients, sum_in_order
from bench.positions import PositionCode


class Message(ABC):
    """R rows, each standing for a vector of d entries.

    Subclasses are dataclasses. A new kind says how it is encoded and what vectors it stands for (`num_bits`,
    `encode`, `decode`, `dense`); the rest it may say better than here.
    """

    kind: ClassVar[str]
    """How the account names this code, as a broadcast."""

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

    def put(self, index: Sequence[int], arrived: "Message") -> Self:
        """These rows, those at `index` replaced by those of `arrived`; in place where there is room."""
        for name, t in self.tensors.items():
            t[index] = arrived.tensors[name].to(t.device)
        return self


def concatenate(messages: Sequence[Message]) -> Message:
    """The rows of several messages of one schema, in order."""
    first = messages[0]
    if len(messages) == 1:
        return first
    if isinstance(first, RaggedMessage):
        width = max(m.tensors["indices"].shape[1] for m in messages)
        messages = [m.widened(width) for m in messages if isinstance(m, RaggedMessage)]
    return first.with_tensors({name: torch.cat([m.tensors[name] for m in messages]) for name in first.tensors})


@dataclass(frozen=True)
class FloatMessage(Message):
    """Floats as they lie in memory, and nothing else. `values`: (R, S)."""

    values: Tensor

    @property
    def num_bits(self) -> Tensor:
        num_rows, num_values = self.values.shape
        return torch.full((num_rows,), num_values * 8 * self.values.element_size())

    def encode(self, row: int) -> np.ndarray:
        return as_bytes(self.values[row])

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        return replace(self, values=torch.stack([from_bytes(p, self.values) for p in payloads]))


@dataclass(frozen=True)
class DenseMessage(FloatMessage):
    """Every entry as it is. `values`: (R, d)."""

    kind = "dense"

    def dense(self) -> Tensor:
        return self.values

    def put(self, index: Sequence[int], arrived: Message) -> Self:
        assert isinstance(arrived, DenseMessage | GradientMessage)
        for row, into in enumerate(index):
            arrived.write(row, self.values[into])
        return self

    def write(self, row: int, out: Tensor) -> None:
        """Copy one row to `out` (d,)."""
        out.copy_(self.values[row])


@dataclass(frozen=True)
class GradientMessage(Message):
    """A `DenseMessage` whose rows are gradients not yet written out.

    Each is written when somebody reads it: into the sum, the server's memory or the wire. The matrix (R, d) that
    nobody needs as such is never filled, which saves half of a dense round.
    """

    gradients: WorkerGradients
    picked: Tensor  # (R,) rows of `gradients`
    like: Tensor  # (d,)
    kind = "dense"

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

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return self.gradients.sum(self.picked) if weights is None else super().sum(weights)

    def finite(self) -> Tensor:
        return self.gradients.finite()[self.picked]

    def write(self, row: int, out: Tensor) -> None:
        """Write one row to `out` (d,)."""
        self.gradients.dense(self.picked[row, None], out=out[None])


@dataclass(frozen=True)
class SparseMessage(Message):
    """The entries at some positions; the others are zero.

    `indices`: (R, k) int64, ascending, distinct. `values`: (R, k). `code` writes the positions, `dim` is d.
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
        """What a row takes besides its positions."""
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
        return _sum_of_sparse(self.indices, self.values, weights, self.dim)

    def subtract_from(self, x: Tensor) -> Tensor:
        return x.scatter_add_(1, self.indices, -self.values)

    def clear_in(self, x: Tensor) -> Tensor:
        return x.scatter_(1, self.indices, 0)


@dataclass(frozen=True)
class RaggedMessage(Message):
    """Entries at some positions, in every row as many as chance would have it; the others are zero.

    `counts`: (R,) int64. `indices`: (R, K) int64, ascending. `values`: (R, K). Both are filled up with zeros from a
    row's count on. `intact`: (R,) bool, whether the vectors were finite. `dim` is d.
    """

    counts: Tensor
    indices: Tensor
    values: Tensor
    intact: Tensor
    dim: int

    def entries(self, row: int) -> tuple[Tensor, Tensor]:
        """The positions and values of one row, without what fills it up."""
        count = int(self.counts[row])
        return self.indices[row, :count], self.values[row, :count]

    def widened(self, width: int) -> Self:
        """The same with K = width."""
        room = (0, width - self.indices.shape[1])
        return replace(self, indices=pad(self.indices, room), values=pad(self.values, room))

    def dense(self) -> Tensor:
        return self.values.new_zeros(self.num_rows, self.dim).scatter_add_(1, self.indices, self.values)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return _sum_of_sparse(self.indices, self.values, weights, self.dim)

    def subtract_from(self, x: Tensor) -> Tensor:
        return x.scatter_add_(1, self.indices, -self.values)

    def finite(self) -> Tensor:
        return self.intact

    def put(self, index: Sequence[int], arrived: Message) -> Self:
        assert isinstance(arrived, RaggedMessage)
        width = max(self.indices.shape[1], arrived.indices.shape[1])
        wide = self if width == self.indices.shape[1] else self.widened(width)
        return super(RaggedMessage, wide).put(index, arrived.widened(width))


def ragged(rows: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Positions and values of R rows -> the counts, indices and values of a `RaggedMessage`."""
    counts = torch.tensor([len(indices) for indices, _ in rows])
    width = int(counts.max())
    padded = [[pad(t, (0, width - len(t))) for t in row] for row in rows]
    indices, values = (torch.stack(column).to(device) for column in zip(*padded, strict=True))
    return {"counts": counts, "indices": indices, "values": values}


def finite_rows(x: Tensor) -> Tensor:
    """(R, n) -> (R,) bool: which rows are free of NaN and infinity. A sum sees both, and costs one read."""
    if x.sum().isfinite():
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return x.isfinite().all(dim=1)


def _sum_of_sparse(indices: Tensor, values: Tensor, weights: Tensor | None, dim: int) -> Tensor:
    """(d,): the sum of rows of entries (R, k), each times its weight if given."""
    values = values if weights is None else values * weights.to(values)[:, None]
    total = values.new_zeros(dim)
    for positions, row in zip(indices, values, strict=True):  # row by row: the same order on every device
        total.index_add_(0, positions, row)
    return total


def bits_of_floats(values: Tensor) -> int:
    """(R, n) floats -> the bits that n of them take."""
    return values.shape[1] * 8 * values.element_size()


def scale_segments(x: Tensor, scales: Tensor, segments: Sequence[int]) -> Tensor:
    """(R, d) times (R, S), every segment by its own, computed in place of `x`."""
    for part, scale in zip(x.split(list(segments), dim=1), scales.T, strict=True):
        part.mul_(scale[:, None])
    return x


def as_bytes(values: Tensor) -> np.ndarray:
    """A tensor's memory."""
    return values.contiguous().cpu().view(torch.uint8).numpy()


def from_bytes(payload: np.ndarray, like: Tensor) -> Tensor:
    """A vector of `like`'s dtype and device, from its memory."""
    values = torch.empty(len(payload) // like.element_size(), dtype=like.dtype)
    values.view(torch.uint8).numpy()[:] = payload
    return values.to(like.device)
