"""Shortest: without loss, all entries or only those that are not zero, whichever takes fewer bits in a round.

The sum of M messages of k entries has at most M·k entries, so a server that answers sparse messages densely sends more
than it has to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import DamagedError
from bench.kernels.noise import Noise
from bench.wire.columnar import Columnar
from bench.wire.floats import as_bytes
from bench.wire.message import Message
from bench.wire.reader import Reader
from bench.wire.sparse import COUNT_BITS, SparsePiece

FLAG_BITS = 8  # which of the two forms follows
DENSE, SPARSE = range(2)
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class ShortestMessage(Columnar):
    """Every entry, or the positions and values of those that are not +0. `values`: (R, d)."""

    values: Tensor
    kind = "shortest"
    of_entries = ("values",)

    @property
    def num_bits(self) -> Tensor:
        bits = [self.num_bits_dense if sparse is None else int(sparse.num_bits) for sparse in self.sparse]
        return torch.tensor(bits) + FLAG_BITS

    @property
    def num_bits_dense(self) -> int:
        """The bits of a row as floats."""
        return self.values.shape[1] * 8 * self.values.element_size()

    @cached_property
    def sparse(self) -> list[SparsePiece | None]:
        """Every row in the sparse form; None where that is not the shorter one."""
        return [self._sparse(row) for row in range(self.num_rows)]

    def _sparse(self, row: int) -> SparsePiece | None:
        values = self.values[row, None]
        pattern = values.view(INTEGERS[values.element_size()])  # in which −0 is an entry like any other
        count = int(pattern.count_nonzero())
        if COUNT_BITS + count * (8 * values.element_size() + 1) >= self.num_bits_dense:
            return None
        indices = pattern[0].nonzero().T
        intact = torch.ones(1, dtype=torch.bool, device=values.device)
        piece = SparsePiece(torch.tensor([count]), indices, values.gather(1, indices), intact, values.shape[1])
        return piece if int(piece.num_bits) < self.num_bits_dense else None

    def encode(self, row: int) -> np.ndarray:
        sparse = self.sparse[row]
        form = DENSE if sparse is None else SPARSE
        payload = as_bytes(self.values[row]) if sparse is None else sparse.encode(0)
        return np.concatenate([np.array([form], np.uint8), payload])

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        return replace(self, values=torch.stack([self._decoded(Reader(payload)) for payload in payloads]))

    def _decoded(self, reader: Reader) -> Tensor:
        form, dim = int(reader.bytes(1, "form")[0]), self.values.shape[1]
        if form > SPARSE:
            raise DamagedError(f"form: {form}; at most {SPARSE} is possible")
        if form == DENSE:
            row = reader.floats(dim, self.values, "values")
            reader.end()
            return row
        none = self.values.new_zeros(1, 0)
        indices, values = SparsePiece(none, none, none, none, dim).decoded(reader)
        return self.values.new_zeros(dim).scatter_(0, indices.to(none.device), values.to(none.device))

    def dense(self) -> Tensor:
        return self.values


@dataclass(frozen=True)
class Shortest(Compressor):
    """C(x) = x. The answer to sparse messages; the form, and a byte that tells it, are chosen in every round."""

    entrywise = keeps_input = lossless = True

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> ShortestMessage:
        return ShortestMessage(x)

    def num_bits_paper(self, message: Message) -> Tensor:
        """No paper has it, so all entries count."""
        num_rows, dim = message.dense().shape
        return torch.full((num_rows,), dim * 8 * message.dense().element_size())

    def contraction(self, segments: Segments) -> float:
        return 1.0

    def variance(self, segments: Segments) -> float:
        return 0.0
