"""Shortest: without loss, in whichever form takes the fewest bits in a round.

The sum of M messages of k entries has at most M·k entries, and that of M ternary messages with one scale has 2M + 1
values, so a server that answers these densely sends more than it has to say.
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
from bench.kernels import masks
from bench.kernels.noise import Noise
from bench.kernels.passes import nonzero
from bench.wire import distinct
from bench.wire.columnar import Columnar
from bench.wire.distinct import Distinct
from bench.wire.floats import as_bytes
from bench.wire.message import Message
from bench.wire.positions import Golomb
from bench.wire.reader import Reader
from bench.wire.sparse import COUNT_BITS, SparsePiece

FLAG_BITS = 8  # which of the forms follows
DENSE, SPARSE, DISTINCT = range(3)
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Nonzero:
    """The entries of a vector (d,) that are not +0; their positions are found when they are written."""

    values: Tensor

    @cached_property
    def num_bits(self) -> int:
        if self.values.device.type != "cpu":
            return int(self.piece.num_bits)
        found = masks.nonzero(self._pattern.numpy())
        if not (count := int(masks.size(found))):
            return COUNT_BITS
        bits_of_positions = Golomb((len(self.values),), (count,)).num_bits_of_set(found)
        return COUNT_BITS + count * 8 * self.values.element_size() + bits_of_positions

    @cached_property
    def piece(self) -> SparsePiece:
        indices, patterns = nonzero(self._pattern)
        counts = torch.tensor([len(indices)])
        intact = torch.ones(1, dtype=torch.bool, device=self.values.device)
        return SparsePiece(counts, indices[None], patterns.view(self.values.dtype)[None], intact, len(self.values))

    @property
    def _pattern(self) -> Tensor:
        return self.values.view(INTEGERS[self.values.element_size()])  # in which −0 is an entry like any other


@dataclass(frozen=True)
class ShortestMessage(Columnar):
    """Every entry, the positions and values of those that are not +0, or the distinct values. `values`: (R, d)."""

    values: Tensor
    segments: Segments
    kind = "shortest"
    of_entries = ("values",)

    @property
    def num_bits(self) -> Tensor:
        bits = [self.num_bits_dense if form is None else int(form.num_bits) for form in self.forms]
        return torch.tensor(bits) + FLAG_BITS

    @property
    def num_bits_dense(self) -> int:
        """The bits of a row as floats."""
        return self.values.shape[1] * 8 * self.values.element_size()

    @cached_property
    def forms(self) -> list[Nonzero | Distinct | None]:
        """Every row in its shortest form; None where that is the dense one."""
        forms = []
        for row in range(self.num_rows):
            few = distinct.distinct(self.values[row], self.segments, self.num_bits_dense)
            entries, least = Nonzero(self.values[row]), self.num_bits_dense if few is None else few.num_bits
            forms.append(entries if entries.num_bits < least else few)
        return forms

    def encode(self, row: int) -> np.ndarray:
        form = self.forms[row]
        if form is None:
            flag, payload = DENSE, as_bytes(self.values[row])
        elif isinstance(form, Distinct):
            flag, payload = DISTINCT, distinct.encode(form, self.segments)
        else:
            flag, payload = SPARSE, form.piece.encode(0)
        return np.concatenate([np.array([flag], np.uint8), payload])

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        return replace(self, values=torch.stack([self._decoded(Reader(payload)) for payload in payloads]))

    def _decoded(self, reader: Reader) -> Tensor:
        form, dim = int(reader.bytes(1, "form")[0]), self.values.shape[1]
        if form > DISTINCT:
            raise DamagedError(f"form: {form}; at most {DISTINCT} is possible")
        if form == DISTINCT:
            return distinct.read(reader, self.segments, self.values)
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
    """C(x) = x. The answer to sparse or ternary messages; each round has its form, and a byte that tells it."""

    entrywise = keeps_input = lossless = True

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> ShortestMessage:
        return ShortestMessage(x, segments)

    def num_bits_paper(self, message: Message) -> Tensor:
        """No paper has it, so all entries count."""
        num_rows, dim = message.dense().shape
        return torch.full((num_rows,), dim * 8 * message.dense().element_size())

    def contraction(self, segments: Segments) -> float:
        return 1.0

    def variance(self, segments: Segments) -> float:
        return 0.0
