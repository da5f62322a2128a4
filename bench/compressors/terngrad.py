"""TernGrad: sends the largest magnitude of every tensor, and −1, 0 or +1 per entry.

Wen, Xu, Yan, Wu, Wang, Chen, Li: TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning,
NeurIPS 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Agreeing, Segments
from bench.errors import InputError
from bench.kernels import draws
from bench.kernels.noise import Noise
from bench.kernels.norms import norms_of_segments
from bench.kernels.sums import add_levels
from bench.wire.bounds import entropies
from bench.wire.columnar import Columnar
from bench.wire.floats import as_bytes, bits_of_floats, scale_segments
from bench.wire.integers import Code, IntegerCode, integer_code, require_code
from bench.wire.message import Message
from bench.wire.reader import Reader
from bench.wire.trits import TRITS_OF_VECTOR


@dataclass(frozen=True)
class ScaledTernaryMessage(Columnar):
    """Each entry is −scale, 0 or +scale. `values`: (R, d) int8. `scales`: (R, S), of each segment.

    `intact`: (R,) bool, whether the vectors were finite. `code`: of the values.
    """

    values: Tensor
    scales: Tensor
    intact: Tensor
    segments: Segments
    code: IntegerCode = TRITS_OF_VECTOR
    kind = "scaled ternary"
    of_entries = ("values",)
    of_segments = ("scales",)

    @property
    def num_bits(self) -> Tensor:
        bits_of_scales = bits_of_floats(self.scales)
        coded = [self.code.num_bits(row, self.segments) for row in self.values.cpu().numpy()]
        return torch.tensor(coded) + bits_of_scales

    @property
    def bound(self) -> Tensor:
        return bits_of_floats(self.scales) + entropies(self.values, self.segments)

    def encode(self, row: int) -> np.ndarray:
        values = self.code.encode(self.values[row].cpu().numpy(), self.segments)
        return np.concatenate([as_bytes(self.scales[row]), values])

    def decode(self, payloads: Sequence[np.ndarray]) -> "ScaledTernaryMessage":
        scales, values = (torch.stack(column) for column in zip(*map(self._decoded, payloads), strict=True))
        device = self.scales.device
        intact = torch.ones(len(values), dtype=torch.bool, device=device)
        return replace(self, values=values.to(device), scales=scales, intact=intact)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        reader = Reader(payload)
        scales = reader.magnitudes(self.scales.shape[1], self.scales, "scales")
        values = self.code.read(reader, self.segments)
        reader.end()
        return scales, torch.from_numpy(values)

    def dense(self) -> Tensor:
        return scale_segments(self.values.to(self.scales.dtype), self.scales, self.segments)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Segments in which all rows have the same scale add up as integers, so that the sum has few distinct values.

        Each segment is decided apart, so that slices of the vector add up alike.
        """
        shared = (self.scales == self.scales[0]).all(dim=0).tolist()
        if weights is not None or not any(shared):
            return super().sum(weights)
        total = add_levels(self.values, self.scales.new_empty(1, self.values.shape[1]))
        total = scale_segments(total, self.scales[:1], self.segments)[0]
        if not all(shared):
            for is_shared, part, of_rows in zip(
                shared, total.split(self.segments), super().sum().split(self.segments), strict=True
            ):
                if not is_shared:
                    part.copy_(of_rows)
        return total

    def finite(self) -> Tensor:
        return self.intact


@dataclass(frozen=True)
class TernGrad(Agreeing):
    """s sign(x_i) with probability |x_i| / s, else 0, where s = max |x| of each segment.

    Args:
        clip: entries are first clipped to this many standard deviations of their segment (about zero), which makes s
            smaller and the result biased; the paper takes 2.5. None does not clip.
        shared: workers exchange their s before they compress, and all use the largest.
        code: of the ternary values: the shortest of `bench.wire.trits`, or "plain", "packed" or "coded".
    """

    repeats = False

    clip: float | None = 2.5
    shared: bool = True
    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"clip: {self.clip}; a number of standard deviations above 0 is needed, or null")

    def offer(self, x: Tensor, segments: Segments) -> Tensor:
        """Return s of each segment: its largest magnitude after clipping."""
        largest = torch.stack([norms_of_segments(row, segments, "max") for row in x])
        if self.clip is None:
            return largest
        lengths = torch.stack([norms_of_segments(row, segments, "l2") for row in x])
        deviations = lengths.new_tensor([self.clip / sqrt(n) for n in segments])
        return torch.minimum(largest, lengths * deviations)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> ScaledTernaryMessage:
        own = self.offer(x, segments)
        return self._ternary(x, segments, noise, own, own)

    def compress_agreed(
        self, x: Tensor, segments: Segments, noise: Sequence[Noise], agreed: Tensor, own: Tensor
    ) -> ScaledTernaryMessage:
        return self._ternary(x, segments, noise, agreed.expand(len(x), -1), own)

    def num_bits_paper(self, message: Message) -> Tensor:
        """Two bits per entry and one float per segment."""
        assert isinstance(message, ScaledTernaryMessage)
        floats = 8 * message.scales.element_size()
        return torch.full((message.num_rows,), 2 * message.values.shape[1] + floats * message.scales.shape[1])

    def contraction(self, segments: Segments) -> None:
        return None  # a small entry, if drawn, is scaled up to s

    def variance(self, segments: Segments) -> float | None:
        """√n − 1: E‖C(x)‖² = s‖x‖₁ ≤ √n‖x‖² with a worker's own s, unclipped.

        None otherwise: clipping is biased, and a shared s may be arbitrarily large.
        """
        return sqrt(max(segments)) - 1 if self.clip is None and not self.shared else None

    def _ternary(
        self, x: Tensor, segments: Segments, noise: Sequence[Noise], scales: Tensor, own: Tensor
    ) -> ScaledTernaryMessage:
        """Draw the ternary entries. Magnitudes above a vector's own scale or that of all, (R, S), count as these.

        Its own is above the other if a Byzantine worker offers too small a scale.
        """
        limits = torch.minimum(own, scales)
        values = torch.empty_like(x, dtype=torch.int8)
        for row, scale, limit, out, origin in zip(x, scales, limits, values, noise, strict=True):
            draws.quantized(row, scale, segments, 1, origin.key("compression"), 0, out, limit)
        code = integer_code(self.code, TRITS_OF_VECTOR)
        return ScaledTernaryMessage(values, scales, own.isfinite().all(dim=1), segments, code)
