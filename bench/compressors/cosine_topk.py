"""Top-k of every chunk's discrete cosine transform.

Peng, Quesnelle, Kingma: DeMo: Decoupled Momentum Optimization, 2024, Algorithm 1.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import torch
from torch import Tensor

from bench.compressors.base import Segments
from bench.compressors.chunk_topk import ChunkTopK
from bench.compressors.chunks import Chunks


@dataclass(frozen=True)
class CosineTopK(ChunkTopK):
    """T_k of the coefficients of every chunk under the orthonormal DCT-II, along both axes of a tile.

    Args:
        length: the largest length of a stretch, as long as a tile's side in the authors' code.
    """

    length: int = 64

    def transformed(self, chunked: Tensor, chunks: Chunks) -> Tensor:
        return _along_both(chunked, chunks, inverse=False)

    def expanded(self, kept: Tensor, chunks: Chunks) -> Tensor:
        return chunks.restored(_along_both(kept, chunks, inverse=True))

    def contraction(self, segments: Segments) -> float:
        """That of top-k, as the transform keeps lengths but for rounding."""
        return min(super().contraction(segments), 1 - 1e-5)


def _along_both(x: Tensor, chunks: Chunks, inverse: bool) -> Tensor:
    """Transform chunks (R, d). Row by row, so that a row's result does not depend on others."""
    sizes = [count * rows * columns for count, rows, columns in chunks.tiles]
    transformed = []
    for row in x:
        parts = []
        for part, shape in zip(row.split(sizes), chunks.tiles, strict=True):
            _, rows, columns = shape
            left, right = (_cosines(n, x.dtype, x.device, inverse) for n in (rows, columns))
            parts.append((left @ (part.reshape(shape).clone() @ right.T)).flatten())
        transformed.append(torch.cat(parts))
    return torch.stack(transformed)


@lru_cache(maxsize=256)
def _cosines(n: int, dtype: torch.dtype, device: torch.device, inverse: bool) -> Tensor:
    """The matrix (n, n) of the transform of n numbers, or its inverse."""
    place = torch.arange(n, dtype=torch.float64)
    cosines = torch.cos(pi / n * place[:, None] * (place + 0.5)) * (2 / n) ** 0.5
    cosines[0] /= 2**0.5
    return (cosines.T if inverse else cosines).contiguous().to(device, dtype)
