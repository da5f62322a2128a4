"""Chunks of a vector: tiles of its matrices, stretches of its other tensors."""

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
        order: (d,) where each entry lies in the vector.
        tiles: (number of chunks, rows, columns) of each segment's.
        sizes: of all chunks, each named by its segment.
    """

    def __init__(self, shapes: tuple[tuple[int, int], ...], side: int, length: int) -> None:
        orders, self.tiles, sizes, start = [], [], [], 0
        for segment, (rows, columns) in enumerate(shapes):
            a = _divisor(rows, side)
            b = _divisor(columns, side if rows > 1 else length)
            places = torch.arange(start, start + rows * columns)
            orders.append(places.view(rows // a, a, columns // b, b).transpose(1, 2).flatten())
            self.tiles.append((rows * columns // (a * b), a, b))
            sizes += [TensorSize(a * b, name=f"segment {segment}")] * (rows * columns // (a * b))
            start += rows * columns
        self.order = torch.cat(orders)
        self.sizes: Segments = tuple(sizes)

    def chunked(self, x: Tensor) -> Tensor:
        """Vectors (R, d) in the order of chunks."""
        return x[:, self.order.to(x.device)]

    def restored(self, chunked: Tensor) -> Tensor:
        """The inverse of `chunked`."""
        return torch.empty_like(chunked).index_copy_(1, self.order.to(chunked.device), chunked)


def chunks_of(segments: Segments, side: int, length: int) -> Chunks:
    """The chunks of a vector in these segments. Segments without a shape are vectors."""
    return _chunks(tuple((num_rows_of(n), n // num_rows_of(n)) for n in segments), side, length)


_chunks = lru_cache(maxsize=16)(Chunks)


def _divisor(n: int, most: int) -> int:
    return max(k for k in range(1, min(n, most) + 1) if n % k == 0)
