"""Top-k: sends the entries of largest magnitude.

Aji, Heafield: Sparse Communication for Distributed Gradient Descent, EMNLP 2017.
Stich, Cordonnier, Jaggi: Sparsified SGD with Memory, NeurIPS 2018.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments, require_density
from bench.errors import InputError
from bench.kernels import passes as kernels
from bench.kernels import selection
from bench.kernels.noise import Noise
from bench.wire.integers import Code, require_code
from bench.wire.message import Message
from bench.wire.positions import position_code
from bench.wire.sparse import SparseMessage


@dataclass(frozen=True)
class TopK(Compressor):
    """T_k: keeps exactly the k = max(1, ⌊density · n⌋) largest |x| of each segment of n entries.

    Among entries of equal magnitude the first is kept, so that the choice is the same on every device.

    Args:
        density: the fraction kept, in (0, 1].
        code: of the positions: None or "coded" for Golomb's, "packed", or "plain" for 32 bits each.
    """

    reuses = True

    density: float
    code: Code | None = None

    def __post_init__(self) -> None:
        require_density(self.density)
        require_code(self.code)

    def counts(self, segments: Segments) -> tuple[int, ...]:
        """Return k of each segment."""
        return kept_counts(self.density, segments)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> SparseMessage:
        return self._message(*top_k(x, segments, self.counts(segments)), segments)

    def compress_each(
        self, vectors: Iterable[Tensor], segments: Segments, noise: Sequence[Noise], used: Message | None = None
    ) -> Iterator[tuple[Tensor, Message]]:
        counts, room = self.counts(segments), None
        shape = len(noise), sum(counts)
        if isinstance(used, SparseMessage) and used.indices.shape == shape and kernels.is_compiled(used.values):
            room = used.indices, used.values
        for row, x in enumerate(vectors):
            if kernels.is_compiled(x):
                room = room or _room(*shape, x.shape[1])
                found = top_k_compiled(x, segments, counts, (room[0][row : row + 1], room[1][row : row + 1]))
            else:
                found = selection.top_k(x, segments, counts)
            yield x, self._message(*found, segments)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> SparseMessage:
        indices = first_positions(num_rows, segments, self.counts(segments), like)
        return self._message(indices, like.new_zeros(indices.shape), segments)

    def num_bits_paper(self, message: Message) -> Tensor:
        """32 bits per kept value and no positions, as SASG's tables count."""
        values = message.tensors["values"]
        return torch.full((len(values),), values.shape[1] * 8 * values.element_size())

    def contraction(self, segments: Segments) -> float:
        return min(k / n for n, k in zip(segments, self.counts(segments), strict=True))

    def _message(self, indices: Tensor, values: Tensor, segments: Segments) -> SparseMessage:
        code = position_code(segments, self.counts(segments), self.code)
        return SparseMessage(indices, values, code, sum(segments))


@lru_cache(maxsize=16)
def kept_counts(density: float, segments: Segments) -> tuple[int, ...]:
    """Return max(1, ⌊density · n⌋) of each segment; 0.29 · 100 = 28.999999999999996 counts as 29."""
    return tuple(max(1, int(round(density * n, 6))) for n in segments)


def top_k(x: Tensor, segments: Segments, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return ascending positions of the counts[s] largest |x| in each segment, first ones at ties, and the entries
    there: (R, d) -> (R, k), (R, k). Compiled, positions take 32 bits where these suffice: memory is what costs."""
    return (top_k_compiled if kernels.is_compiled(x) else selection.top_k)(x, segments, counts)


def first_positions(num_rows: int, segments: Segments, counts: tuple[int, ...], like: Tensor) -> Tensor:
    """Return positions (R, k) as `top_k` would of vectors like this one: the first ones of each segment."""
    first = torch.cat([torch.arange(k) + start for k, start in zip(counts, _starts(segments), strict=True)])
    kind = _integers(sum(segments)) if kernels.is_compiled(like) else torch.int64
    return first.to(like.device, kind).expand(num_rows, -1).clone()


def top_k_compiled(
    x: Tensor, segments: Segments, counts: tuple[int, ...], room: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """`top_k` for float32 on the CPU. `room`: where to write what it returns; new memory if None."""
    indices, values = room or _room(len(x), sum(counts), x.shape[1])
    bits, found = (t.detach().contiguous().view(torch.int32).numpy() for t in (x, values))
    kernels.top_k(bits, *_as_arrays(segments, counts, x.shape[1]), indices.numpy(), found)
    return indices, values


def _room(num_rows: int, num_kept: int, dim: int) -> tuple[Tensor, Tensor]:
    """Memory for positions and values (R, k) of vectors (d,) on the CPU."""
    indices = torch.empty(num_rows, num_kept, dtype=_integers(dim), device="cpu")
    return indices, torch.empty_like(indices, dtype=torch.float32)  # whatever the default dtype is


def _integers(dim: int) -> torch.dtype:
    """The integers in which compiled passes write the positions of vectors (d,)."""
    return torch.int32 if dim <= torch.iinfo(torch.int32).max else torch.int64


def _starts(segments: Segments) -> list[int]:
    return np.cumsum([0, *segments[:-1]]).tolist()


@lru_cache(maxsize=16)  # counts may change from round to round
def _as_arrays(segments: Segments, counts: tuple[int, ...], dim: int) -> tuple[np.ndarray, np.ndarray]:
    if len(counts) != len(segments) or any(not 1 <= k <= n for k, n in zip(counts, segments, strict=True)):
        raise InputError(f"segments: {segments} of which {counts} entries are kept; at least one of each is needed")
    return kernels.as_array(segments, dim), np.array(counts)
