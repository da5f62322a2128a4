"""Sparse messages of which most entries are ± a scale: the hybrid code of GSpar (arXiv 1710.09854, section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from bench.errors import DamagedError
from bench.kernels.passes import is_compiled
from bench.wire import signs, trits
from bench.wire.bounds import entropies, set_bits
from bench.wire.floats import as_bytes, bits_of_floats
from bench.wire.integers import Code, Coded, IntegerCode
from bench.wire.message import Message
from bench.wire.positions import PositionCode, make_position_code
from bench.wire.ragged import RaggedMessage, ragged
from bench.wire.reader import Reader
from bench.wire.slices import cut_segments, join_segments

COUNT_BITS = 32  # the field with the number of entries sent as floats
CODED_TRITS = Coded(-1, 1)


@dataclass(frozen=True)
class HybridMessage(RaggedMessage):
    """The paper's hybrid code: entries drawn with probability 1 are sent as floats, other drawn entries as ±scale.

    `scales`: (R, S) of each segment, 1/λ in the paper. The wire carries the scales, the positions and values of the
    entries whose magnitude is not the scale, and those that are ±scale as a ternary vector.

    `code`: of positions and of the ternary vector; "packed" sends positions and signs of the ±scale entries instead, as
    the paper counts them, and "plain" positions and values of all entries.
    """

    scales: Tensor
    segments: tuple[int, ...]
    code: Code | None
    kind = "hybrid"

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        pieces: list[Message] = []
        for start, end in pairwise(bounds):
            sizes, there = cut_segments(self.segments, start, end)
            entries = self.within(start, end)
            pieces.append(replace(self, **entries, dim=end - start, scales=self.scales[:, there], segments=sizes))
        return pieces

    def joined(self, pieces: Sequence[Message]) -> "HybridMessage":
        whole, slices = super().joined(pieces), [piece for piece in pieces if isinstance(piece, HybridMessage)]
        assert isinstance(whole, HybridMessage)
        scales = join_segments([p.scales for p in slices], [p.dim for p in slices], self.segments)
        return replace(whole, scales=scales)

    def parts(self, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return positions and values of the entries sent as floats, and those of the ±scale entries."""
        indices, values = self.entries(row)
        if self.code == "plain":
            return indices, values, indices[:0], values[:0]
        return self.split[row][:4]

    @cached_property
    def split(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """For every row: positions and values of the entries sent as floats, those of the ±scale entries, and how many
        of each kind there are in every segment, (2, S)."""
        return [_split(*self.entries(row), self.scales[row], self.segments) for row in range(self.num_rows)]

    @property
    def num_bits(self) -> Tensor:
        return torch.tensor([self._num_bits(row) for row in range(self.num_rows)])

    def _num_bits(self, row: int) -> int:
        indices, values, scaled, signed = self.parts(row)
        num_bits = bits_of_floats(self.scales) + bits_of_floats(values[None]) + self._bits_of_positions(indices)
        if self.code == "plain":
            return num_bits
        if self.code == "packed":
            return num_bits + len(signed) + self._bits_of_positions(scaled)
        if self.code == "coded":
            return num_bits + CODED_TRITS.num_bits(self._ternary(scaled, signed).numpy(), self.segments)
        return num_bits + trits.num_bits_of_entries(scaled.cpu().numpy(), self.dim)

    def _bits_of_positions(self, indices: Tensor) -> int:
        """Return the bits of their number and of the positions."""
        if not len(indices):
            return COUNT_BITS
        return COUNT_BITS + int(self._positions(len(indices)).num_bits(indices[None].cpu()))

    @property
    def _trits(self) -> IntegerCode:
        return CODED_TRITS if self.code == "coded" else trits.TRITS_OF_VECTOR

    def _positions(self, count: int) -> PositionCode:
        return make_position_code((self.dim,), (count,), self.code)

    @property
    def bound(self) -> Tensor:
        totals = []
        for row in range(self.num_rows):
            indices, values, scaled, signed = replace(self, code=None).parts(row)
            floats = bits_of_floats(self.scales) + bits_of_floats(values[None])
            entropy = entropies(self._ternary(scaled, signed)[None], self.segments)
            totals.append(floats + set_bits((self.dim,), (len(indices),)) + entropy)
        return torch.cat(totals)

    def encode(self, row: int) -> np.ndarray:
        indices, values, scaled, signed = self.parts(row)
        fields = [as_bytes(self.scales[row]), *self._encoded(indices, as_bytes(values))]
        if self.code == "packed":
            fields += self._encoded(scaled, signs.pack(signed[None])[0][0].cpu().numpy())
        elif self.code != "plain":
            fields.append(self._trits.encode(self._ternary(scaled, signed).numpy(), self.segments))
        return np.concatenate(fields)

    def _encoded(self, indices: Tensor, values: np.ndarray) -> list[np.ndarray]:
        """Return their number, the bytes of their values, and the positions."""
        fields = [np.array([len(indices)], ">u4").view(np.uint8), values]
        return [*fields, self._positions(len(indices)).encode(indices)] if len(indices) else fields

    def _ternary(self, scaled: Tensor, signed: Tensor) -> Tensor:
        """Return the ±scale entries as a vector (d,) int8 of −1, 0 and 1, on the CPU."""
        return torch.zeros(self.dim, dtype=torch.int8).scatter_(0, scaled.cpu(), signed.sign().to(torch.int8).cpu())

    def decode(self, payloads: Sequence[np.ndarray]) -> "HybridMessage":
        scales, rows = zip(*map(self._decoded, payloads), strict=True)
        device = self.values.device
        intact = torch.ones(len(rows), dtype=torch.bool, device=device)
        return replace(self, **ragged(rows, device), intact=intact, scales=torch.stack(scales).to(device))

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Decode bytes to the scales (S,), and the positions and values of the entries."""
        reader, like = Reader(payload), self.values.new_empty(0, device="cpu")
        scales = reader.magnitudes(self.scales.shape[1], like, "scales")
        count = reader.number(self.dim, "number of floats")
        values = reader.floats(count, like, "values")
        indices, ternary = self._read_positions(reader, count), torch.zeros(self.dim, dtype=torch.int8)
        if self.code == "packed":
            count = reader.number(self.dim, "number of signs")
            signed = signs.unpack(reader.packed_signs(count)[None], like.new_empty(1, count))[0]
            ternary[self._read_positions(reader, count)] = signed.to(torch.int8)
        elif self.code != "plain":
            ternary = torch.from_numpy(self._trits.read(reader, self.segments))
        reader.end()
        if ternary[indices].any():
            raise DamagedError("positions: an entry is sent twice")
        scaled = ternary.nonzero()[:, 0]
        scale = scales[segment_of(scaled, self.segments)]
        indices, order = torch.cat([indices, scaled]).sort()
        return scales, (indices, torch.cat([values, scale.copysign(ternary[scaled])])[order])

    def _read_positions(self, reader: Reader, count: int) -> Tensor:
        return self._positions(count).read(reader) if count else torch.empty(0, dtype=torch.int64)


def segment_of(indices: Tensor, segments: tuple[int, ...]) -> Tensor:
    """Return the index of the segment that each position lies in."""
    ends = torch.tensor(segments, device=indices.device).cumsum(0)
    return torch.bucketize(indices, ends, right=True)


def _split(
    indices: Tensor, values: Tensor, scales: Tensor, segments: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do as `HybridMessage.split` does for a row."""
    if not is_compiled(values):
        where = segment_of(indices, segments)
        scaled = values.abs() == scales[where]
        counts = [torch.bincount(where[of].cpu(), minlength=len(segments)) for of in (~scaled, scaled)]
        return indices[~scaled], values[~scaled], indices[scaled], values[scaled], torch.stack(counts)
    positions, entries = torch.empty(2, len(indices) + 1, dtype=torch.int64), values.new_empty(2, len(indices) + 1)
    counts = torch.zeros(2, len(segments), dtype=torch.int64)
    arrays = (t.numpy() for t in (indices, values, scales, positions, entries, counts))
    exact, scaled = _divide(np.cumsum(segments), *arrays)
    return positions[0, :exact], entries[0, :exact], positions[1, :scaled], entries[1, :scaled], counts


@numba.njit(nogil=True, cache=True)
def _divide(
    ends: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    scales: np.ndarray,
    positions: np.ndarray,
    entries: np.ndarray,
    counts: np.ndarray,
) -> Any:
    segment, exact, scaled = 0, 0, 0
    for i in range(indices.size):
        while indices[i] >= ends[segment]:
            segment += 1
        is_scaled = np.int64(abs(values[i]) == scales[segment])
        positions[0, exact] = positions[1, scaled] = indices[i]  # always written: no branch to predict
        entries[0, exact] = entries[1, scaled] = values[i]
        scaled += is_scaled
        exact += 1 - is_scaled
        counts[is_scaled, segment] += 1
    return exact, scaled
