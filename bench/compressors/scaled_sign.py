"""Scaled sign: one bit per entry and the mean magnitude of each segment.

Karimireddy, Rebjock, Stich, Jaggi: Error Feedback Fixes SignSGD and other Gradient Compression Schemes, ICML 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.kernels.noise import Noise
from bench.kernels.norms import mean_magnitudes
from bench.wire import signs
from bench.wire.columnar import Columnar
from bench.wire.floats import as_bytes, bits_of_floats, scale_segments
from bench.wire.integers import Code, require_code
from bench.wire.message import Message
from bench.wire.reader import Reader


@dataclass(frozen=True)
class ScaledSignMessage(Columnar):
    """Each entry is ±scale. `bits`: (R, ⌈d/8⌉), as `signs.pack` writes them. `scales`: (R, S), of each segment.

    `code`: of the signs.
    """

    bits: Tensor
    scales: Tensor
    segments: Segments
    code: Code | None
    kind = "scaled sign"
    fixed_size = True
    of_bits = ("bits",)
    of_segments = ("scales",)

    @property
    def num_bits(self) -> Tensor:
        num_bits = signs.num_bits(sum(self.segments), self.code) + bits_of_floats(self.scales)
        return torch.full((self.num_rows,), num_bits)

    @property
    def bound(self) -> Tensor:
        return replace(self, code="packed").num_bits.double()

    def encode(self, row: int) -> np.ndarray:
        packed = signs.encode(self.bits[row], sum(self.segments), self.code)
        return np.concatenate([as_bytes(self.scales[row]), packed])

    def decode(self, payloads: Sequence[np.ndarray]) -> "ScaledSignMessage":
        scales, bits = (torch.stack(column) for column in zip(*map(self._decoded, payloads), strict=True))
        return replace(self, bits=bits.to(self.bits.device), scales=scales)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        reader = Reader(payload)
        scales = reader.magnitudes(self.scales.shape[1], self.scales, "scales")
        bits = signs.read(reader, sum(self.segments), self.code)
        reader.end()
        return scales, bits

    def dense(self) -> Tensor:
        x = signs.unpack(self.bits, self.scales.new_empty(self.num_rows, sum(self.segments)))
        return scale_segments(x, self.scales, self.segments)


@dataclass(frozen=True)
class ScaledSign(Compressor):
    """C(x) = (‖x‖₁ / n) sign(x) for each segment of n entries; n + 32 bits. A zero counts as positive.

    Args:
        code: of the signs: a bit each, or "plain" for a byte each. A sign's entropy is a bit, so "coded" is "packed".
    """

    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> ScaledSignMessage:
        scales = torch.stack([mean_magnitudes(row, segments) for row in x])  # sums do not depend on other rows
        return ScaledSignMessage(signs.pack(x)[0], scales, segments, self.code)

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.bound.long()

    def contraction(self, segments: Segments) -> float:
        """1/n: ‖C(x) − x‖² = (1 − ‖x‖₁² / (n‖x‖²)) ‖x‖², worst if x has one non-zero entry.

        Karimireddy et al., Lemma 8.
        """
        return 1 / max(segments)
