"""Sparse messages whose values are few: each is a place in a table of its part of the vector."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.wire.bounds import set_bits
from bench.wire.floats import as_bytes, bits_of_floats, finite_rows
from bench.wire.integers import Packed
from bench.wire.reader import Reader
from bench.wire.sparse import SparseMessage


@dataclass(frozen=True)
class TabledMessage(SparseMessage):
    """`places`: (R, k) uint8, of each value in its table. `tables`: (R, T, 2^b). `parts`: how many values each of the T
    tables has. `values`: (R, k), looked up."""

    places: Tensor
    tables: Tensor
    parts: tuple[int, ...]
    kind = "tabled"
    cuttable = False

    @property
    def packed(self) -> Packed:
        """The code of places."""
        return Packed(0, self.tables.shape[2] - 1)

    @property
    def bits_of_values(self) -> int:
        return bits_of_floats(self.tables.flatten(1)) + self.packed.num_bits(self.places[0].cpu().numpy(), self.parts)

    @property
    def bound(self) -> Tensor:
        num_bits = set_bits(self.code.segments, self.code.counts) + self.bits_of_values
        return torch.full((self.num_rows,), num_bits, dtype=torch.float64)

    def finite(self) -> Tensor:
        return finite_rows(self.values)  # tables are of another shape

    def encode(self, row: int) -> np.ndarray:
        places = self.packed.encode(self.places[row].cpu().numpy(), self.parts)
        return np.concatenate([as_bytes(self.tables[row].flatten()), self.code.encode(self.indices[row]), places])

    def decode(self, payloads: Sequence[np.ndarray]) -> "TabledMessage":
        rows, like = [], self.tables
        for reader in map(Reader, payloads):
            tables = reader.floats(like[0].numel(), like, "tables").view(like.shape[1:])
            indices = self.code.read(reader).to(self.indices)
            places = torch.from_numpy(self.packed.read(reader, self.parts).astype(np.uint8)).to(like.device)
            reader.end()
            rows.append((indices, looked_up(places[None], tables[None], self.parts)[0], places, tables))
        indices, values, places, tables = (torch.stack(column) for column in zip(*rows, strict=True))
        return replace(self, indices=indices, values=values, places=places, tables=tables)


def looked_up(places: Tensor, tables: Tensor, parts: tuple[int, ...]) -> Tensor:
    """(R, k): the values at places (R, k) in tables (R, T, 2^b)."""
    which = torch.arange(len(parts), device=places.device).repeat_interleave(torch.tensor(parts, device=places.device))
    return tables.flatten(1).gather(1, which * tables.shape[2] + places.long())
