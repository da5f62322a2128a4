"""Top-k of every chunk, its values in few bits.

Sarfi, Thérien, Lidin, Belilovsky: Communication Efficient LLM Pre-training with SparseLoCo, 2025.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, log2

import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.compressors.chunks import Chunks, chunks_of
from bench.compressors.topk import first_positions, kept_counts, top_k
from bench.errors import InputError
from bench.gradients.layout import name_of
from bench.kernels.noise import Noise
from bench.kernels.sums import wide
from bench.wire.chunked import ChunkedMessage
from bench.wire.message import Message
from bench.wire.positions import position_code
from bench.wire.sparse import SparseMessage
from bench.wire.tabled import TabledMessage, looked_up

SIGMAS = 6  # how many standard deviations all bins together are wide


@dataclass(frozen=True)
class ChunkTopK(Compressor):
    """T_k of every chunk: of each tile of a matrix and of each stretch of a vector.

    With `bits`, the values of a tensor fall into 2^bits bins of equal width, which together are six standard deviations
    wide, centred on the mean; a value becomes the mean of its bin (as in the authors' code).

    Args:
        kept: the fraction kept of a chunk, in (0, 1], or a number of entries, at least 1.
        side: the largest side of a tile (`Chunks`).
        length: the largest length of a stretch.
        bits: of a value, 1 to 8; None sends floats.
    """

    kept: float
    side: int = 64
    length: int = 4096
    bits: int | None = None

    def __post_init__(self) -> None:
        if not (0 < self.kept <= 1 or (self.kept > 1 and self.kept == int(self.kept))):
            raise InputError(f"kept: {self.kept}; a fraction in (0, 1] or a number of entries is needed")
        for name, given in (("side", self.side), ("length", self.length)):
            if given < 1:
                raise InputError(f"{name}: {given}; at least 1 is needed")
        if self.bits is not None and not 1 <= self.bits <= 8:
            raise InputError(f"bits: {self.bits}; 1 to 8 are possible, or null for floats")

    def counts(self, chunks: Chunks) -> tuple[int, ...]:
        """k of every chunk."""
        if isinstance(self.kept, int) or self.kept > 1:
            return tuple(min(int(self.kept), n) for n in chunks.sizes)
        return kept_counts(self.kept, chunks.sizes)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> ChunkedMessage:
        chunks = chunks_of(segments, self.side, self.length)
        chunked = self.transformed(chunks.chunked(x), chunks)
        return self._message(*top_k(chunked, chunks.sizes, self.counts(chunks)), chunks)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> ChunkedMessage:
        chunks = chunks_of(segments, self.side, self.length)
        indices = first_positions(num_rows, chunks.sizes, self.counts(chunks), like)
        return self._message(indices, like.new_zeros(indices.shape), chunks)

    def transformed(self, chunked: Tensor, chunks: Chunks) -> Tensor:
        """Chunks of vectors (R, d), in their order -> what is kept of them."""
        return chunked

    def expanded(self, kept: Tensor, chunks: Chunks) -> Tensor:
        """The inverse of `transformed`, as vectors (R, d)."""
        return chunks.restored(kept)

    def num_bits_paper(self, message: Message) -> Tensor:
        """For each kept entry its bits, 32 without `bits`, and those of its position in the chunk."""
        assert isinstance(message, ChunkedMessage)
        code, bits = message.inner.code, self.bits or 8 * message.inner.values.element_size()
        num_bits = sum(k * (bits + ceil(log2(n))) for n, k in zip(code.segments, code.counts, strict=True))
        return torch.full((message.num_rows,), num_bits)

    def contraction(self, segments: Segments) -> float:
        """Means of bins are a projection, whose error may be all of what is kept."""
        chunks = chunks_of(segments, self.side, self.length)
        kept = min(k / n for n, k in zip(chunks.sizes, self.counts(chunks), strict=True))
        return kept if self.bits is None else 0.0

    def _message(self, indices: Tensor, values: Tensor, chunks: Chunks) -> ChunkedMessage:
        counts = self.counts(chunks)
        code, dim = position_code(chunks.sizes, counts), sum(chunks.sizes)
        inner = SparseMessage(indices, values, code, dim)
        if self.bits is not None:
            by_tensor = groupby(zip(chunks.sizes, counts, strict=True), key=lambda chunk: name_of(chunk[0]))
            parts = tuple(sum(k for _, k in group) for _, group in by_tensor)
            places, tables = _binned(values, parts, 2**self.bits)
            inner = TabledMessage(indices, looked_up(places, tables, parts), code, dim, places, tables, parts)
        return ChunkedMessage(inner, lambda kept: self.expanded(kept, chunks))


def _binned(values: Tensor, parts: tuple[int, ...], num_bins: int) -> tuple[Tensor, Tensor]:
    """The bins (R, k) of values, and the means (R, T, num_bins) of those of each part."""
    places = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    tables = values.new_zeros(len(values), len(parts), num_bins)
    for row, tables_of_row, places_of_row in zip(values, tables, places, strict=True):
        columns = wide(row).split(parts), places_of_row.split(parts), tables_of_row
        for part, places_of_part, table in zip(*columns, strict=True):
            centred = part - part.mean()
            width = SIGMAS * centred.square().sum().div(max(1, len(part) - 1)).sqrt() / num_bins
            bins = (centred / width.clamp(min=torch.finfo(width.dtype).tiny) + num_bins // 2).round()
            bins = bins.clamp(0, num_bins - 1).nan_to_num().long()
            places_of_part.copy_(bins)
            sums = part.new_zeros(num_bins).index_add_(0, bins, part)
            table.copy_(sums / torch.bincount(bins, minlength=num_bins).clamp(min=1))
    return places, tables
