"""Top-k signs: sends the positions of the largest entries, and their signs.

Park, Lee: Sparse-SignSGD with Majority Vote for Communication-Efficient Distributed Learning, arXiv 2302.07475.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments, require_density
from bench.compressors.topk import first_positions, top_k
from bench.kernels.noise import Noise
from bench.wire import signs
from bench.wire.bounds import set_bits
from bench.wire.integers import Code, require_code
from bench.wire.message import Message
from bench.wire.positions import position_code
from bench.wire.reader import Reader
from bench.wire.sparse import SparseMessage, SparsePiece


@dataclass(frozen=True)
class SparseSignPiece(SparsePiece):
    """A slice of a `SparseSignMessage`."""

    kind = "sparse sign"

    def bits_of_values(self, count: int) -> int:
        return signs.num_bits(count, self.code)

    def encode_values(self, values: Tensor) -> np.ndarray:
        return signs.encode(signs.pack(values[None])[0][0], len(values), self.code)

    def decode_values(self, reader: Reader, count: int) -> Tensor:
        bits = signs.read(reader, count, self.code)[None]
        return signs.unpack(bits, self.values.new_empty((1, count), device="cpu"))[0]


@dataclass(frozen=True)
class SparseSignMessage(SparseMessage):
    """±1 at some positions; the other entries are zero."""

    kind = "sparse sign"
    piece = SparseSignPiece

    @property
    def bits_of_values(self) -> int:
        return signs.num_bits(self.values.shape[1], self.code.name)

    @property
    def bound(self) -> Tensor:
        num_bits = set_bits(self.code.segments, self.code.counts) + self.values.shape[1]
        return torch.full((self.num_rows,), num_bits, dtype=torch.float64)

    def encode(self, row: int) -> np.ndarray:
        bits, _ = signs.pack(self.values[row, None])
        packed = signs.encode(bits[0], self.values.shape[1], self.code.name)
        return np.concatenate([packed, self.code.encode(self.indices[row])])

    def decode_values(self, reader: Reader) -> Tensor:
        bits = signs.read(reader, self.values.shape[1], self.code.name)[None].to(self.values.device)
        return signs.unpack(bits, self.values.new_empty(1, self.values.shape[1]))[0]


@dataclass(frozen=True)
class TopKSign(Compressor):
    """Sends the signs of the K = ⌈density · n⌉ largest |x| of each segment of n entries; a zero counts as positive.

    Args:
        density: the fraction sent, in (0, 1].
        code: of the positions: None or "coded" for Golomb's, "packed", or "plain" for 32 bits each, and a byte a sign.
    """

    density: float
    code: Code | None = None

    def __post_init__(self) -> None:
        require_density(self.density)
        require_code(self.code)

    def counts(self, segments: Segments) -> tuple[int, ...]:
        """Return K of each segment; 0.07 · 100 = 7.000000000000001 counts as 7."""
        return tuple(max(1, ceil(round(self.density * n, 6))) for n in segments)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> SparseSignMessage:
        counts = self.counts(segments)
        indices, kept = top_k(x, segments, counts)
        values = torch.where(kept.isfinite(), torch.where(kept < 0, -1.0, 1.0).to(x), kept)
        return SparseSignMessage(indices, values, position_code(segments, counts, self.code), sum(segments))

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> SparseSignMessage:
        counts = self.counts(segments)
        indices = first_positions(num_rows, segments, counts, like)
        code = position_code(segments, counts, self.code)
        return SparseSignMessage(indices, like.new_ones(indices.shape), code, sum(segments))

    def num_bits_paper(self, message: Message) -> Tensor:
        """Sum of log₂ C(n, K) + K over segments, the bound from which the paper computes its savings."""
        assert isinstance(message, SparseSignMessage)
        code = message.code
        return torch.full((message.num_rows,), ceil(set_bits(code.segments, code.counts)) + code.num_positions)

    def contraction(self, segments: Segments) -> None:
        return None  # K signs have norm √K, however short x is
