"""Chunks of a vector: tiles of its matrices, stretches of its other tensors."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from bench.compressors.base import Segments
from bench.gradients.layout import TensorSize, num_rows_of


class Chunks:
    """The entries of a vector in the order of its chunks, each chunk row by row.

    A tile's side is the largest divisor of the matrix's up to `side`, a stretch's length that of the tensor's up to
    `length`, so that chunks of a tensor are equally large (as in DeMo's code).

    Args:
        shapes: (rows, columns) of each segment; one row if it is no matrix.
        side, length: the largest allowed.

    Attributes:
        tiles: (number of chunks, rows, columns) of each segment's.
        sizes: of all chunks, each named by its segment.
    """

    def __init__(self, shapes: tuple[tuple[int, int], ...], side: int, length: int) -> None:
        self.tiles, self._grids, sizes = [], [], []
        for segment, (rows, columns) in enumerate(shapes):
            a = _divisor(rows, side)
            b = _divisor(columns, side if rows > 1 else length)
            self._grids.append((rows // a, a, columns // b, b))
            self.tiles.append((rows * columns // (a * b), a, b))
            sizes += [TensorSize(a * b, name=f"segment {segment}")] * (rows * columns // (a * b))
        self.sizes: Segments = tuple(sizes)

    def chunked(self, x: Tensor) -> Tensor:
        """Vectors (R, d) in the order of chunks."""
        chunked = torch.empty_like(x, memory_format=torch.contiguous_format)
        for of_vector, of_chunks in self._matched(x, chunked):
            of_chunks.copy_(of_vector)
        return chunked

    def restored(self, chunked: Tensor) -> Tensor:
        """The inverse of `chunked`."""
        x = torch.empty_like(chunked, memory_format=torch.contiguous_format)
        for of_vector, of_chunks in self._matched(x, chunked):
            of_vector.copy_(of_chunks)
        return x

    def _matched(self, x: Tensor, chunked: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Each segment's entries of vectors and of their chunks, (R, chunks down, chunks across, rows, columns)."""
        sizes = [down * a * across * b for down, a, across, b in self._grids]
        for grid, of_vector, of_chunks in zip(self._grids, x.split(sizes, 1), chunked.split(sizes, 1), strict=True):
            down, a, across, b = grid
            yield of_vector.unflatten(1, grid).transpose(2, 3), of_chunks.unflatten(1, (down, across, a, b))


def chunks_of(segments: Segments, side: int, length: int) -> Chunks:
    """The chunks of a vector in these segments. Segments without a shape are vectors."""
    return _chunks(tuple((num_rows_of(n), n // num_rows_of(n)) for n in segments), side, length)


_chunks = lru_cache(maxsize=16)(Chunks)


def _divisor(n: int, most: int) -> int:
    return max(k for k in range(1, min(n, most) + 1) if n % k == 0)
