"""PowerSGD: of every matrix its product with a few directions, which follow what the server answers.

Vogels, Karimireddy, Jaggi: PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization,
NeurIPS 2019. As in the authors' later code the left and the right half of a power iteration take turns, a round each,
so that a round is one exchange; the paper's Algorithm 1 has both halves, and two exchanges, in every round. A worker's
error is what its own projection leaves out, as in Algorithm 2; in that code it is what all workers' mean leaves out,
which comes to the same on average. Nothing is sent dense at first, and every matrix of more than r rows and columns is
projected.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.gradients.layout import num_rows_of
from bench.kernels.alignment import aligned
from bench.kernels.noise import Noise
from bench.kernels.sums import sum_in_order, wide
from bench.wire.dense import FloatMessage
from bench.wire.message import Message


class Part(NamedTuple):
    """A segment as it is sent.

    `size`: of the segment. `num_rows`: of its matrix. `transposed`: whether the matrix is taken as its transpose.
    `basis`: (m, r) orthonormal, m the columns of that matrix; None where the entries travel as they are.
    """

    size: int
    num_rows: int
    transposed: bool
    basis: Tensor | None

    @property
    def num_values(self) -> int:
        """How many floats are sent."""
        return self.size if self.basis is None else self.size // len(self.basis) * self.basis.shape[1]

    def values(self, entries: Tensor) -> Tensor:
        """(size,) -> (num_values,): the matrix times the basis, row by row, or the entries as they are."""
        if self.basis is None:
            return entries
        matrix = aligned(entries).view(self.num_rows, -1)
        return ((matrix.T if self.transposed else matrix) @ self.basis).flatten()

    def write(self, values: Tensor, out: Tensor) -> None:
        """Write to `out` (size,) the segment that these values (num_values,) stand for."""
        if self.basis is None:
            out.copy_(values)
        else:
            torch.mm(*self._factors(values), out=out.view(self.num_rows, -1))

    def subtract(self, values: Tensor, out: Tensor) -> None:
        """Subtract it from `out`."""
        if self.basis is None:
            out.sub_(values)
        else:
            out.view(self.num_rows, -1).addmm_(*self._factors(values), alpha=-1)

    def _factors(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Two matrices whose product is the segment's."""
        assert self.basis is not None
        product = aligned(values).view(-1, self.basis.shape[1])
        return (self.basis, product.T) if self.transposed else (product, self.basis.T)


@dataclass(frozen=True)
class LowRankMessage(FloatMessage):
    """Products of matrices with bases that everybody knows. `values`: (R, S), part after part. `rank`: of the bases."""

    parts: tuple[Part, ...]
    rank: int
    kind = "low rank"

    def dense(self) -> Tensor:
        x = self.values.new_empty(self.num_rows, sum(part.size for part in self.parts))
        self._each(Part.write, x)
        return x

    def subtract_from(self, x: Tensor) -> Tensor:
        self._each(Part.subtract, x)
        return x

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Added up as they are sent: what makes them all-reducible."""
        rows = self.values if weights is None else self.values * weights.to(self.values)[:, None]
        return replace(self, values=sum_in_order(list(rows))[None]).dense()[0]

    def by_part(self, row: int) -> list[tuple[Part, Tensor]]:
        """The parts and their values in one row."""
        return list(zip(self.parts, self.values[row].split([part.num_values for part in self.parts]), strict=True))

    def _each(self, work: Callable[[Part, Tensor, Tensor], None], x: Tensor) -> None:
        """Do this with every part of every row: the part, its values, and its entries in x (R, d)."""
        for row, entries in enumerate(x):
            parts = zip(self.by_part(row), entries.split([part.size for part in self.parts]), strict=True)
            for (part, values), out in parts:
                work(part, values, out)


@dataclass(frozen=True)
class PowerSGD(Compressor):
    """The part of every matrix that lies in the span of `rank` directions; vectors, and smaller matrices, as they are.

    After every answer D of the server the directions are those of D times the last ones, on the other side.

    Args:
        rank: r; lower is shorter.
        bases: the directions of this round, a matrix each; drawn at first, by all alike.
        turn: how many answers there have been.
    """

    all_reducible = True
    follows = True

    rank: int = 2
    bases: tuple[Tensor, ...] = field(default=(), compare=False, repr=False)
    turn: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank: {self.rank}; at least 1 is needed")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> LowRankMessage:
        parts = self._parts(segments, x)
        rows = [
            torch.cat([part.values(entries) for part, entries in zip(parts, row.split(segments), strict=True)])
            for row in x
        ]
        return LowRankMessage(torch.stack(rows), parts, self.rank)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> LowRankMessage:
        parts = self._parts(segments, like)
        return LowRankMessage(like.new_zeros(num_rows, sum(part.num_values for part in parts)), parts, self.rank)

    def after(self, answer: Message, segments: Segments) -> Self:
        if not (isinstance(answer, LowRankMessage) and answer.rank == self.rank):  # which is made of these products
            answer = self.compress(answer.dense(), segments, [])
        products = [values.view(-1, self.rank) for part, values in answer.by_part(0) if part.basis is not None]
        seeds = range(self.turn * len(products), (self.turn + 1) * len(products))
        return replace(self, bases=tuple(map(_orthonormal, products, seeds)), turn=self.turn + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"bases": list(self.bases), "turn": self.turn}

    def restored(self, state: dict[str, Any], device: torch.device) -> Self:
        return replace(self, bases=tuple(basis.to(device) for basis in state["bases"]), turn=state["turn"])

    def num_bits_paper(self, message: Message) -> Tensor:
        """A float for each number sent, as the paper counts, in one exchange."""
        return message.num_bits

    def contraction(self, segments: Segments) -> float:
        return 0.0  # a matrix may lie across all directions, and a projection never makes it longer

    def _parts(self, segments: Segments, like: Tensor) -> tuple[Part, ...]:
        transposed, bases, parts = self.turn % 2 == 1, iter(self.bases), []
        for index, size in enumerate(segments):
            num_rows = num_rows_of(size)
            if self.rank >= min(num_rows, size // num_rows):
                parts.append(Part(size, num_rows, transposed, None))
                continue
            basis = next(bases, None)
            if basis is None:
                num_columns = size // num_rows
                basis = _orthonormal(_drawn(index, num_columns, self.rank, like), index)
            parts.append(Part(size, num_rows, transposed, basis))
        return tuple(parts)


def _drawn(seed: int, num_rows: int, rank: int, like: Tensor) -> Tensor:
    """(n, r) normal, the same for all workers."""
    drawn = torch.randn(num_rows, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(like)


def _orthonormal(columns: Tensor, seed: int) -> Tensor:
    """(n, r) -> (n, r), an orthonormal basis of what they span.

    Where that is of less than r dimensions others are drawn. Otherwise a matrix of zeros would leave unit vectors,
    along which a network with dead units may have nothing ever after.
    """
    spanning = wide(columns)
    length = float(spanning.norm()) or 1.0
    num_rows, rank = spanning.shape
    fresh = _drawn(seed, num_rows, rank, spanning) * (torch.finfo(spanning.dtype).eps * length)
    basis = torch.linalg.qr(spanning + fresh).Q
    return basis.to(columns.dtype).contiguous()
