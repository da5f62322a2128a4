"""Sparse messages with a random number of entries in each row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.wire.message import Message
from bench.wire.slices import all_intact
from bench.wire.sums import subtract_entries, sum_of_entries


@dataclass(frozen=True)
class RaggedMessage(Message):
    """Entries at some positions, a random number of them in each row; the others are zero.

    `counts`: (R,) int64. `indices`: (R, K) int64, ascending. `values`: (R, K). Both are padded with zeros from a row's
    count on. `intact`: (R,) bool, whether the vectors were finite. `dim`: d.
    """

    counts: Tensor
    indices: Tensor
    values: Tensor
    intact: Tensor
    dim: int
    cuttable = True

    def entries(self, row: int) -> tuple[Tensor, Tensor]:
        """Return the positions and values of one row, without padding."""
        count = int(self.counts[row])
        return self.indices[row, :count], self.values[row, :count]

    def widened(self, width: int) -> Self:
        """Return the same message, padded to K = width."""
        room = (0, width - self.indices.shape[1])
        return replace(self, indices=pad(self.indices, room), values=pad(self.values, room))

    def dense(self) -> Tensor:
        return self.values.new_zeros(self.num_rows, self.dim).scatter_add_(1, self.indices, self.values)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return sum_of_entries(self.indices, self.values, weights, self.dim)

    def subtract_from(self, x: Tensor) -> Tensor:
        return subtract_entries(self.indices, self.values, x)

    def finite(self) -> Tensor:
        return self.intact

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        return [replace(self, **self.within(start, end), dim=end - start) for start, end in pairwise(bounds)]

    def within(self, start: int, end: int) -> dict[str, Tensor]:
        """Return the counts, indices and values of the entries between two positions; indices count from the first."""
        return within([self.entries(row) for row in range(self.num_rows)], start, end, self.values.device)

    def joined(self, pieces: Sequence[Message]) -> Message:
        intact = all_intact([piece.tensors["intact"] for piece in pieces])
        return replace(self, **ragged(joined_rows(pieces), self.values.device), intact=intact)

    def followed_by(self, others: Sequence[Message]) -> Message:
        messages = [self, *(m for m in others if isinstance(m, RaggedMessage))]
        width = max(m.indices.shape[1] for m in messages)
        first, *rest = (m.widened(width) for m in messages)
        return Message.followed_by(first, rest)

    def put(self, index: Sequence[int], arrived: Message) -> Self:
        assert isinstance(arrived, RaggedMessage)
        width = max(self.indices.shape[1], arrived.indices.shape[1])
        wide = self if width == self.indices.shape[1] else self.widened(width)
        return super(RaggedMessage, wide).put(index, arrived.widened(width))


def within(rows: Sequence[tuple[Tensor, Tensor]], start: int, end: int, device: torch.device) -> dict[str, Tensor]:
    """Return what `ragged` returns, of R rows' entries between two positions; indices count from the first."""
    kept = []
    for indices, values in rows:
        first, last = torch.searchsorted(indices, torch.tensor([start, end], device=indices.device)).tolist()
        kept.append((indices[first:last] - start, values[first:last]))
    return ragged(kept, device)


def joined_rows(pieces: Sequence[Message]) -> list[tuple[Tensor, Tensor]]:
    """Return the positions and values of R rows, given messages over consecutive slices."""
    starts, total = [], 0
    slices = [piece for piece in pieces if isinstance(piece, RaggedMessage)]
    for piece in slices:
        starts.append(total)
        total += piece.dim
    rows = []
    for row in range(slices[0].num_rows):
        entries = [piece.entries(row) for piece in slices]
        indices = torch.cat([positions + start for (positions, _), start in zip(entries, starts, strict=True)])
        rows.append((indices, torch.cat([values for _, values in entries])))
    return rows


def ragged(rows: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Return the counts, indices and values of a `RaggedMessage`, given positions and values of R rows."""
    counts = torch.tensor([len(indices) for indices, _ in rows])
    if len(rows) == 1:  # nothing to pad
        ((indices, values),) = rows
        return {"counts": counts, "indices": indices[None].to(device), "values": values[None].to(device)}
    width = int(counts.max())
    padded = [[pad(t, (0, width - len(t))) for t in row] for row in rows]
    indices, values = (torch.stack(column).to(device) for column in zip(*padded, strict=True))
    return {"counts": counts, "indices": indices, "values": values}
