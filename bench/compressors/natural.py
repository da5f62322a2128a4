"""Natural compression: each entry becomes ± a power of two, the nine sign and exponent bits of a float32.

Horváth, Ho, Horváth, Sahu, Canini, Richtárik: Natural Compression for Distributed Deep Learning, 2019 (arXiv
1905.10988), Definition 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.kernels import draws
from bench.kernels.noise import Noise
from bench.wire import signs
from bench.wire.bounds import entropies
from bench.wire.columnar import Columnar
from bench.wire.integers import Code, IntegerCode, Packed, integer_code, require_code
from bench.wire.message import Message
from bench.wire.reader import Reader

MANTISSA_BITS = 23  # of a float32
LARGEST_OF_FP16 = 127 + 15  # the exponent of 2¹⁵, beyond which it has no power of two


@dataclass(frozen=True)
class NaturalMessage(Columnar):
    """Each entry is ±2^(e − 127), or 0 if e = 0. `exponents`: (R, d) uint8, e. `bits`: (R, ⌈d/8⌉) uint8, the signs.

    `intact`: (R,) bool, whether the vectors were finite. `dtype`: of the vectors. `code`: of both; signs
    come first on the wire.
    """

    exponents: Tensor
    bits: Tensor
    intact: Tensor
    dtype: torch.dtype
    code: Code | None
    kind = "natural"
    of_entries = ("exponents",)
    of_bits = ("bits",)

    @property
    def num_bits(self) -> Tensor:
        dim = self.exponents.shape[1]
        coded = [self.exponent_code.num_bits(row, (dim,)) for row in self.exponents.cpu().numpy()]
        return torch.tensor(coded) + signs.num_bits(dim, self.code)

    @property
    def exponent_code(self) -> IntegerCode:
        """The code of the exponents: a byte each, if no other is chosen."""
        return integer_code(self.code, Packed(0, 254))

    @property
    def fixed_size(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.exponent_code.fixed_size

    @property
    def bound(self) -> Tensor:
        return entropies(self.exponents, self.exponents.shape[1:]) + self.exponents.shape[1]

    def encode(self, row: int) -> np.ndarray:
        dim = self.exponents.shape[1]
        exponents = self.exponent_code.encode(self.exponents[row].cpu().numpy(), (dim,))
        return np.concatenate([signs.encode(self.bits[row], dim, self.code), exponents])

    def decode(self, payloads: Sequence[np.ndarray]) -> "NaturalMessage":
        columns = zip(*map(self._decoded, payloads), strict=True)
        exponents, bits = (torch.stack(column).to(self.bits.device) for column in columns)
        intact = torch.ones(len(bits), dtype=torch.bool, device=bits.device)
        return replace(self, exponents=exponents, bits=bits, intact=intact)

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, Tensor]:
        reader, dim = Reader(payload), self.exponents.shape[1]
        bits = signs.read(reader, dim, self.code)
        exponents = self.exponent_code.read(reader, (dim,))
        reader.end()
        return torch.from_numpy(exponents), bits

    def dense(self) -> Tensor:
        return self._unpacked(self.exponents, self.bits)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        if weights is not None:
            return super().sum(weights)
        total, *others = zip(self.exponents.split(1), self.bits.split(1), strict=True)  # single rows fit in the cache
        return sum((self._unpacked(*row)[0] for row in others), self._unpacked(*total)[0])

    def _unpacked(self, exponents: Tensor, bits: Tensor) -> Tensor:
        powers = (exponents.int() << MANTISSA_BITS).view(torch.float32).to(self.dtype)
        return signs.unpack(bits, torch.empty_like(powers)).mul_(powers)

    def finite(self) -> Tensor:
        return self.intact


@dataclass(frozen=True)
class Natural(Compressor):
    """Rounds each entry at random to the next smaller or larger power of two, without bias.

    Args:
        code: of signs and exponents: a bit and a byte each, or "plain", "packed" (the same) or "coded".
    """

    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> NaturalMessage:
        exponents = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
        for row, out, origin in zip(x.float(), exponents, noise, strict=True):
            draws.powers(row, origin.key("compression"), out)
        if x.dtype is torch.float16:
            exponents.clamp_(max=LARGEST_OF_FP16)
        bits, finite = signs.pack(x)
        return NaturalMessage(exponents, bits, finite, x.dtype, self.code)

    def num_bits_paper(self, message: Message) -> Tensor:
        """Nine bits per entry."""
        assert isinstance(message, NaturalMessage)
        return torch.full((message.num_rows,), 9 * message.exponents.shape[1])

    def contraction(self, segments: Segments) -> None:
        return None  # an entry below 2^−126, the smallest power, may be rounded up to it

    def variance(self, segments: Segments) -> float:
        """1/8 (Theorem 1)."""
        return 1 / 8
