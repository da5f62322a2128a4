"""Scaled sign: one bit per entry and the mean magnitude of each segment.

Karimireddy, Rebjock, Stich, Jaggi: Error Feedback Fixes SignSGD and other Gradient Compression Schemes, ICML 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.kernels.noise import Noise
from bench.wire import signs
from bench.wire.columnar import Columnar
from bench.wire.floats import as_bytes, bits_of_floats, scale_segments
from bench.wire.message import Message
from bench.wire.reader import Reader


@dataclass(frozen=True)
class ScaledSignMessage(Columnar):
    """Each entry is ±scale. `bits`: (R, ⌈d/8⌉), as `signs.pack` writes them. `scales`: (R, S), of each segment."""

    bits: Tensor
    scales: Tensor
    segments: Segments
    kind = "scaled sign"
    fixed_size = True
    of_bits = ("bits",)
    of_segments = ("scales",)

    @property
    def num_bits(self) -> Tensor:
        return torch.full((self.num_rows,), sum(self.segments) + bits_of_floats(self.scales))

    def encode(self, row: int) -> np.ndarray:
        return np.concatenate([as_bytes(self.scales[row]), self.bits[row].cpu().numpy()])

    def decode(self, payloads: Sequence[np.ndarray]) -> "ScaledSignMessage":
        scales, bits = (torch.stack(column) for column in zip(*map(self._decoded, payloads), strict=True))
        return ScaledSignMessage(bits.to(self.bits.device), scales, self.segments)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        reader = Reader(payload)
        scales = reader.floats(self.scales.shape[1], self.scales, "scales")
        bits = reader.packed_signs(sum(self.segments))
        reader.end()
        return scales, bits

    def dense(self) -> Tensor:
        x = signs.unpack(self.bits, self.scales.new_empty(self.num_rows, sum(self.segments)))
        return scale_segments(x, self.scales, self.segments)


@dataclass(frozen=True)
class ScaledSign(Compressor):
    """C(x) = (‖x‖₁ / n) sign(x) for each segment of n entries; n + 32 bits. A zero counts as positive."""

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> ScaledSignMessage:
        parts = [row.split(segments) for row in x]  # row by row, so sums do not depend on other rows
        scales = torch.stack([torch.stack([part.abs().mean() for part in row]) for row in parts])
        return ScaledSignMessage(signs.pack(x)[0], scales, segments)

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.num_bits

    def contraction(self, segments: Segments) -> float:
        """1/n: ‖C(x) − x‖² = (1 − ‖x‖₁² / (n‖x‖²)) ‖x‖², worst if x has one non-zero entry.

        Karimireddy et al., Lemma 8.
        """
        return 1 / max(segments)
