"""QSGD: sends the norm of a vector, and a level and a sign per entry.

Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding,
NeurIPS 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import sqrt
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.kernels import draws
from bench.kernels.levels import expand, sum_expanded
from bench.kernels.noise import Noise
from bench.kernels.norms import Norm, norms, norms_of_segments
from bench.kernels.passes import is_compiled
from bench.wire.bounds import entropies
from bench.wire.columnar import Columnar
from bench.wire.elias import HEADER_BITS, Elias
from bench.wire.floats import as_bytes, bits_of_floats
from bench.wire.integers import Code, IntegerCode, integer_code, require_code
from bench.wire.message import Message
from bench.wire.reader import Reader

MOST_LEVELS = 2**15 - 1  # levels are stored as int16 at most
MOST_OF_BUCKET = 2**31 - 1


@dataclass(frozen=True)
class LevelMessage(Columnar):
    """Each entry is ‖x‖ sign(x_i) l_i / s. `levels`: (R, d) signed integers ±l_i. `norms`: (R, B), of each bucket.

    `sizes`: of the buckets. `code`: of the levels. On the wire the norms come first, as floats.
    """

    levels: Tensor
    norms: Tensor
    sizes: tuple[int, ...]
    num_levels: int
    code: IntegerCode
    kind = "levels"
    of_entries = ("levels",)
    of_segments = ("norms",)
    sizes_in = "sizes"

    @property
    def num_bits(self) -> Tensor:
        return self.num_bits_elias if isinstance(self.code, Elias) else self._num_bits(self.code)

    @cached_property
    def num_bits_elias(self) -> Tensor:
        """(R,) bits of each row in Elias' code, the paper's."""
        return self._num_bits(Elias(-self.num_levels, self.num_levels))

    def _num_bits(self, code: IntegerCode) -> Tensor:
        coded = [code.num_bits(row, (len(row),)) for row in self.levels.cpu().numpy()]
        return torch.tensor(coded) + bits_of_floats(self.norms)

    @property
    def fixed_size(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.code.fixed_size

    @property
    def bound(self) -> Tensor:
        return bits_of_floats(self.norms) + entropies(self.levels, self.levels.shape[1:])

    def encode(self, row: int) -> np.ndarray:
        levels = self.code.encode(self.levels[row].cpu().numpy(), self.levels.shape[1:])
        return np.concatenate([as_bytes(self.norms[row]), levels])

    def decode(self, payloads: Sequence[np.ndarray]) -> "LevelMessage":
        norms, levels = (torch.stack(column) for column in zip(*map(self._decoded, payloads), strict=True))
        return replace(self, levels=levels.to(self.levels.device), norms=norms)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        reader = Reader(payload)
        norms = reader.magnitudes(self.norms.shape[1], self.norms, "norms")
        levels = self.code.read(reader, self.levels.shape[1:])
        reader.end()
        return norms, torch.from_numpy(levels)

    def dense(self) -> Tensor:
        return expand(self.levels, self.norms / self.num_levels, self.sizes)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        if weights is not None or not is_compiled(self.norms):
            return super().sum(weights)
        return sum_expanded(self.levels, self.norms / self.num_levels, self.sizes)


@dataclass(frozen=True)
class QSGD(Compressor):
    """‖x‖ sign(x_i) l_i / s, where l_i is s|x_i| / ‖x‖ rounded up or down at random, without bias.

    Args:
        levels: s, at least 1.
        norm: "l2" as in the paper's theory, or "max" as in its experiments.
        bucket: the number of consecutive entries that share a norm, 1 to 2³¹ − 1; None means a whole segment.
        code: of the levels: Elias' as in the paper, or "plain", "packed" or "coded".
    """

    repeats = False

    levels: int
    norm: Norm = "l2"
    bucket: int | None = None
    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)
        if not 1 <= self.levels <= MOST_LEVELS:
            raise InputError(f"levels: {self.levels}; 1 to {MOST_LEVELS} is allowed")
        if self.norm not in get_args(Norm):
            raise InputError(f"norm: {self.norm!r}; one of {', '.join(get_args(Norm))} is needed")
        if self.bucket is not None and not 1 <= self.bucket <= MOST_OF_BUCKET:
            raise InputError(f"bucket: {self.bucket}; 1 to {MOST_OF_BUCKET} entries are needed, or null")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> LevelMessage:
        dtype, sizes = torch.int8 if self.levels < 2**7 else torch.int16, _bucket_sizes(segments, self.bucket)
        levels, lengths = torch.empty_like(x, dtype=dtype), x.new_empty(len(x), len(sizes))
        for row, own, out, origin in zip(x, lengths, levels, noise, strict=True):
            if self.bucket is None:
                own.copy_(norms_of_segments(row, segments, self.norm))
            else:
                own.copy_(torch.cat([norms(part, self.bucket, self.norm) for part in row.split(segments)]))
            draws.quantized(row, own, sizes, self.levels, origin.key("compression"), 0, out)
        code = integer_code(self.code, Elias(-self.levels, self.levels))
        return LevelMessage(levels, lengths, sizes, self.levels, code)

    def num_bits_paper(self, message: Message) -> Tensor:
        """Those of norms and levels, without the header that says which of Elias' codes follows."""
        assert isinstance(message, LevelMessage)
        return message.num_bits_elias - HEADER_BITS

    def contraction(self, segments: Segments) -> None:
        return None  # rounding small entries up may make the error longer than x

    def variance(self, segments: Segments) -> float:
        """min(n/s², √n/s), Lemma 3.1 for the L2 norm; it also holds for the max norm, which is no larger.

        For s = 1 the exact bound is returned: ‖x‖‖x‖₁ − ‖x‖₂² ≤ (√n − 1)‖x‖₂², and half of that for the max norm.
        """
        n, s = max(_bucket_sizes(segments, self.bucket)), self.levels
        if s == 1:
            return (sqrt(n) - 1) / (2 if self.norm == "max" else 1)
        return min(n / s**2, sqrt(n) / s)


@lru_cache(maxsize=16)  # counts may change from round to round
def _bucket_sizes(segments: Segments, bucket: int | None) -> tuple[int, ...]:
    if bucket is None:
        return segments
    whole = [[bucket] * (n // bucket) + [n % bucket] * (n % bucket > 0) for n in segments]
    return tuple(size for sizes in whole for size in sizes)
