"""Top-k ternary: the positions and signs of the largest entries, and one magnitude for all of them.

Sattler, Wiedemann, Müller, Samek: Robust and Communication-Efficient Federated Learning from Non-IID Data, 2019
(Sparse Ternary Compression).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.compressors.topk import TopK, first_positions, top_k
from bench.kernels.noise import Noise
from bench.kernels.norms import mean_magnitudes
from bench.kernels.passes import spread
from bench.wire import signs
from bench.wire.bounds import set_bits
from bench.wire.floats import as_bytes, bits_of_floats
from bench.wire.message import Message
from bench.wire.positions import position_code
from bench.wire.reader import Reader
from bench.wire.sparse import SparseMessage


@dataclass(frozen=True)
class SparseTernaryMessage(SparseMessage):
    """±scale at some positions. `scales`: (R, S), of each segment. `values`: (R, k), ±scale."""

    scales: Tensor
    kind = "sparse ternary"
    cuttable = False

    @property
    def bits_of_values(self) -> int:
        return bits_of_floats(self.scales) + signs.num_bits(self.code.num_positions, self.code.name)

    @property
    def bound(self) -> Tensor:
        num_bits = set_bits(self.code.segments, self.code.counts) + self.code.num_positions
        return torch.full((self.num_rows,), num_bits + bits_of_floats(self.scales), dtype=torch.float64)

    def encode(self, row: int) -> np.ndarray:
        bits, _ = signs.pack(self.values[row, None])
        packed = signs.encode(bits[0], self.code.num_positions, self.code.name)
        return np.concatenate([as_bytes(self.scales[row]), packed, self.code.encode(self.indices[row])])

    def decode(self, payloads: Sequence[np.ndarray]) -> "SparseTernaryMessage":
        scales, values, indices = (torch.stack(column) for column in zip(*map(self._read, payloads), strict=True))
        return replace(self, scales=scales, values=values, indices=indices.to(self.indices))

    def _read(self, payload: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        reader, num_entries = Reader(payload), self.code.num_positions
        scales = reader.magnitudes(self.scales.shape[1], self.scales, "scales")
        bits = signs.read(reader, num_entries, self.code.name)[None].to(scales.device)
        indices = self.code.read(reader)
        reader.end()
        values = signs.unpack(bits, scales.new_empty(1, num_entries))[0]
        return scales, spread(scales[None], self.code.counts)[0] * values, indices


@dataclass(frozen=True)
class TopKTernary(TopK):
    """μ sign(x_i) at the k = max(1, ⌊density · n⌋) largest |x| of each segment of n, μ being the mean |x| of these."""

    reuses = False
    compress_each = Compressor.compress_each  # these messages are shorter than what `top_k` finds

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> SparseTernaryMessage:
        counts = self.counts(segments)
        indices, kept = top_k(x, segments, counts)
        scales = torch.stack([mean_magnitudes(row, counts) for row in kept])  # sums do not depend on other rows
        values = spread(scales, counts) * torch.where(kept < 0, -1.0, 1.0).to(x)
        return SparseTernaryMessage(indices, values, position_code(segments, counts, self.code), x.shape[1], scales)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> SparseTernaryMessage:
        counts = self.counts(segments)
        indices, code = (
            first_positions(num_rows, segments, counts, like),
            position_code(segments, counts, self.code),
        )
        values, scales = like.new_zeros(indices.shape), like.new_zeros(num_rows, len(segments))
        return SparseTernaryMessage(indices, values, code, sum(segments), scales)

    def num_bits_paper(self, message: Message) -> Tensor:
        """Those on the wire under the Golomb code, which is the paper's."""
        assert isinstance(message, SparseTernaryMessage)
        code = position_code(message.code.segments, message.code.counts)
        return replace(message, code=code).num_bits

    def contraction(self, segments: Segments) -> float:
        """min(1/k, k/n): ‖x − C(x)‖² = ‖x‖² − (Σ kept |x|)² / k.

        With m the smallest kept magnitude and T = Σ (|x| − m) over the kept ones, ‖x‖² ≤ nm² + 2mT + T², while
        (km + T)² / k = km² + 2mT + T²/k.
        """
        return min(min(1 / k, k / n) for n, k in zip(segments, self.counts(segments), strict=True))
