"""Uniform grid: rounds every entry to the nearest of 2^b values between −‖x‖∞ and ‖x‖∞.

Sun, Chen, Giannakis, Yang: Communication-Efficient Distributed Learning via Lazily Aggregated Quantized Gradients,
NeurIPS 2019, section 2.1. The paper centres the grid at the last quantized gradient; here x is the difference to that
gradient, which `bench.feedback.Differences` computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.kernels.levels import to_grid
from bench.kernels.noise import Noise
from bench.kernels.norms import norms_of_segments
from bench.kernels.sums import wide
from bench.wire.bounds import entropies
from bench.wire.columnar import Columnar
from bench.wire.floats import as_bytes, bits_of_floats, scale_segments
from bench.wire.integers import Code, IntegerCode, Packed, integer_code, require_code
from bench.wire.message import Message
from bench.wire.reader import Reader

MOST_BITS = 8  # levels are stored as uint8


@dataclass(frozen=True)
class GridMessage(Columnar):
    """Each entry is (2q / (2^b − 1) − 1) R. `levels`: (R, d) uint8, q. `radii`: (R, S), R of each segment.

    `code`: of the levels.
    """

    levels: Tensor
    radii: Tensor
    segments: Segments
    bits: int
    code: IntegerCode
    kind = "grid"
    of_entries = ("levels",)
    of_segments = ("radii",)

    @property
    def num_bits(self) -> Tensor:
        coded = [self.code.num_bits(row, self.segments) for row in self.levels.cpu().numpy()]
        return torch.tensor(coded) + bits_of_floats(self.radii)

    @property
    def fixed_size(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.code.fixed_size

    @property
    def bound(self) -> Tensor:
        return bits_of_floats(self.radii) + entropies(self.levels, self.segments)

    def encode(self, row: int) -> np.ndarray:
        levels = self.code.encode(self.levels[row].cpu().numpy(), self.segments)
        return np.concatenate([as_bytes(self.radii[row]), levels])

    def decode(self, payloads: Sequence[np.ndarray]) -> "GridMessage":
        radii, levels = (torch.stack(column) for column in zip(*map(self._decoded, payloads), strict=True))
        return replace(self, levels=levels.to(self.levels.device), radii=radii)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        reader = Reader(payload)
        radii = reader.magnitudes(self.radii.shape[1], self.radii, "radii")
        levels = self.code.read(reader, self.segments)
        reader.end()
        return radii, torch.from_numpy(levels)

    def dense(self) -> Tensor:
        radii = wide(self.radii)  # half precision has too few digits for the grid's points
        x = self.levels.to(radii.dtype).mul_(2 / (2**self.bits - 1)).sub_(1)
        return scale_segments(x, radii, self.segments).to(self.radii.dtype)


@dataclass(frozen=True)
class Grid(Compressor):
    """Rounds to the nearest of 2^b values from −R to R, R = ‖x‖∞ of each segment; b bits per entry.

    No entry is off by more than R / (2^b − 1), up to floating-point rounding. Deterministic: nothing is drawn.

    Args:
        bits: b, 2 to 8. With b = 1 the error could be as long as x.
        code: of the levels: b bits each, or "plain", "packed" (the same as b bits) or "coded".
    """

    bits: int
    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)
        if not 2 <= self.bits <= MOST_BITS:
            raise InputError(f"bits: {self.bits}; 2 to {MOST_BITS} is allowed")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> GridMessage:
        radii, levels = x.new_empty(len(x), len(segments)), torch.empty_like(x, dtype=torch.uint8)
        for row, own, written in zip(x, radii, levels, strict=True):
            own.copy_(norms_of_segments(row, segments, "max"))
            to_grid(row, own, segments, 2**self.bits - 1, written)
        code = integer_code(self.code, Packed(0, 2**self.bits - 1))
        return GridMessage(levels, radii, segments, self.bits, code)

    def num_bits_paper(self, message: Message) -> Tensor:
        """32 + b d: one radius, and one level per entry."""
        assert isinstance(message, GridMessage)
        num_rows, dim = message.levels.shape
        return torch.full((num_rows,), dim * self.bits + bits_of_floats(message.radii))

    def contraction(self, segments: Segments) -> float | None:
        """1 − n / (2^b − 1)² if above 0; without rounding n − 1, as the worst x has one entry R and all others 0."""
        least = 1 - max(segments) / (2**self.bits - 1) ** 2
        return least if least > 0 else None
