"""Identity: no compression, 32 bits per float."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.kernels.alignment import aligned_zeros
from bench.kernels.noise import Noise
from bench.wire.dense import DenseMessage
from bench.wire.message import Message


@dataclass(frozen=True)
class Identity(Compressor):
    """C(x) = x. Also the dense answer."""

    all_reducible = entrywise = keeps_input = lossless = True

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> DenseMessage:
        return DenseMessage(x)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> DenseMessage:
        return DenseMessage(aligned_zeros(num_rows, sum(segments), like))

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.num_bits

    def contraction(self, segments: Segments) -> float:
        return 1.0

    def variance(self, segments: Segments) -> float:
        return 0.0
