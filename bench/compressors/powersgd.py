"""PowerSGD: sends the product of every matrix with a few directions, which are updated from the server's answers.

Vogels, Karimireddy, Jaggi: PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization,
NeurIPS 2019. As in the authors' later code, rounds alternate between the left and the right half of a power iteration,
so that each round needs one exchange; the paper's Algorithm 1 does both halves, with two exchanges, in every round. A
worker's error is what its own projection leaves out, as in Algorithm 2; in that code it is what the mean over workers
leaves out, which is the same on average. There is no dense start-up phase, and every matrix with more than r rows and
columns is projected.
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
    """How a segment is sent.

    Attributes:
        size: entries of the segment.
        num_rows: rows of its matrix.
        transposed: whether the transpose of the matrix is projected.
        basis: (m, r) orthonormal, m the columns of the projected matrix; None if the entries are sent uncompressed.
    """

    size: int
    num_rows: int
    transposed: bool
    basis: Tensor | None

    @property
    def num_values(self) -> int:
        """The number of floats sent."""
        return self.size if self.basis is None else self.size // len(self.basis) * self.basis.shape[1]

    def values(self, entries: Tensor) -> Tensor:
        """(size,) -> (num_values,): the matrix times the basis, row by row, or the entries themselves."""
        if self.basis is None:
            return entries
        matrix = aligned(entries).view(self.num_rows, -1)
        return ((matrix.T if self.transposed else matrix) @ self.basis).flatten()

    def write(self, values: Tensor, out: Tensor) -> None:
        """Write the segment that these values (num_values,) represent to `out` (size,)."""
        if self.basis is None:
            out.copy_(values)
        else:
            torch.mm(*self._factors(values), out=out.view(self.num_rows, -1))

    def subtract(self, values: Tensor, out: Tensor) -> None:
        """Subtract the segment that these values (num_values,) represent from `out` (size,)."""
        if self.basis is None:
            out.sub_(values)
        else:
            out.view(self.num_rows, -1).addmm_(*self._factors(values), alpha=-1)

    def _factors(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return two matrices whose product is the segment's matrix."""
        assert self.basis is not None
        product = aligned(values).view(-1, self.basis.shape[1])
        return (self.basis, product.T) if self.transposed else (product, self.basis.T)


@dataclass(frozen=True)
class LowRankMessage(FloatMessage):
    """Products of matrices with bases that all workers know.

    `values`: (R, S), one part after another. `rank`: columns of each basis.
    """

    parts: tuple[Part, ...]
    rank: int
    kind = "low rank"
    values_add_up = True

    def dense(self) -> Tensor:
        x = self.values.new_empty(self.num_rows, sum(part.size for part in self.parts))
        self._each(Part.write, x)
        return x

    def subtract_from(self, x: Tensor) -> Tensor:
        self._each(Part.subtract, x)
        return x

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Sum the products before expanding them, which makes these messages all-reducible."""
        rows = self.values if weights is None else self.values * weights.to(self.values)[:, None]
        return replace(self, values=sum_in_order(list(rows))[None]).dense()[0]

    def by_part(self, row: int) -> list[tuple[Part, Tensor]]:
        """Return the parts and their values in one row."""
        return list(zip(self.parts, self.values[row].split([part.num_values for part in self.parts]), strict=True))

    def _each(self, work: Callable[[Part, Tensor, Tensor], None], x: Tensor) -> None:
        """Call `work` for every part of every row with the part, its values and its entries in x (R, d)."""
        for row, entries in enumerate(x):
            parts = zip(self.by_part(row), entries.split([part.size for part in self.parts]), strict=True)
            for (part, values), out in parts:
                work(part, values, out)


@dataclass(frozen=True)
class PowerSGD(Compressor):
    """Projects every matrix on the span of `rank` directions; vectors and smaller matrices are sent uncompressed.

    After each answer D of the server, the next directions span D times the last ones, on the other side of the matrix.

    Args:
        rank: r; a lower rank makes messages shorter.
        bases: the directions of this round, one matrix each; in the first round all workers draw the same.
        turn: the number of answers so far.
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
        if not (isinstance(answer, LowRankMessage) and answer.rank == self.rank):  # it holds no such products
            answer = self.compress(answer.dense(), segments, [])
        products = [values.view(-1, self.rank) for part, values in answer.by_part(0) if part.basis is not None]
        seeds = range(self.turn * len(products), (self.turn + 1) * len(products))
        return replace(self, bases=tuple(map(_orthonormal, products, seeds)), turn=self.turn + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"bases": list(self.bases), "turn": self.turn}

    def restored(self, state: dict[str, Any], device: torch.device) -> Self:
        return replace(self, bases=tuple(basis.to(device) for basis in state["bases"]), turn=state["turn"])

    def num_bits_paper(self, message: Message) -> Tensor:
        """One float per number sent, as the paper counts, for one exchange."""
        return message.num_bits

    def contraction(self, segments: Segments) -> float:
        return 0.0  # a matrix may be orthogonal to all directions; a projection never lengthens it

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
    """Draw (n, r) normal numbers, the same for all workers."""
    drawn = torch.randn(num_rows, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(like)


def _orthonormal(columns: Tensor, seed: int) -> Tensor:
    """Return an orthonormal basis (n, r) of the span of the columns (n, r).

    If the span has fewer than r dimensions, the missing directions are drawn at random. Otherwise a matrix of zeros
    would yield unit vectors, along which the gradients of a network with dead units may stay zero for ever.
    """
    spanning = wide(columns)
    length = float(spanning.norm()) or 1.0
    num_rows, rank = spanning.shape
    fresh = _drawn(seed, num_rows, rank, spanning) * (torch.finfo(spanning.dtype).eps * length)
    basis = torch.linalg.qr(spanning + fresh).Q
    return basis.to(columns.dtype).contiguous()
