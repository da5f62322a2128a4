"""Sign: one bit per entry.

Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: Compressed Optimisation for Non-Convex Problems, ICML 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.kernels.draws import hashes
from bench.kernels.noise import Noise
from bench.wire import signs
from bench.wire.columnar import Columnar
from bench.wire.integers import Code, require_code
from bench.wire.message import Message
from bench.wire.reader import Reader

Zeros = Literal["plus", "random"]


@dataclass(frozen=True)
class SignMessage(Columnar):
    """Each entry is ±1. `bits`: (R, ⌈d/8⌉) uint8, as `signs.pack` writes them. `dim`: d. `dtype`: of the vectors.

    `intact`: (R,) bool, whether the vectors were finite; messages of others are never sent. `code`: of the signs.
    """

    bits: Tensor
    intact: Tensor
    dim: int
    dtype: torch.dtype
    code: Code | None
    kind = "sign"
    fixed_size = True
    of_bits = ("bits",)

    @property
    def num_bits(self) -> Tensor:
        return torch.full((self.num_rows,), signs.num_bits(self.dim, self.code))

    @property
    def bound(self) -> Tensor:
        return torch.full((self.num_rows,), self.dim, dtype=torch.float64)

    def encode(self, row: int) -> np.ndarray:
        return signs.encode(self.bits[row], self.dim, self.code)

    def decode(self, payloads: Sequence[np.ndarray]) -> "SignMessage":
        bits = torch.stack([self._decoded(Reader(payload)) for payload in payloads]).to(self.bits.device)
        intact = torch.ones(len(bits), dtype=torch.bool, device=bits.device)
        return replace(self, bits=bits, intact=intact)

    def _decoded(self, reader: Reader) -> Tensor:
        bits = signs.read(reader, self.dim, self.code)
        reader.end()
        return bits

    def dense(self) -> Tensor:
        return signs.unpack(self.bits, self._empty(self.num_rows, self.dim))

    def sum(self, weights: Tensor | None = None) -> Tensor:
        return super().sum(weights) if weights is not None else signs.add_up(self.bits, self._empty(self.dim))

    def finite(self) -> Tensor:
        return self.intact

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.bits.device)


@dataclass(frozen=True)
class Sign(Compressor):
    """C(x) = sign(x), with two values. Also the broadcast of a majority vote.

    Args:
        zeros: how a zero entry is sent: "plus" (+1, as bit packing gives it) or "random" (a random sign).
        code: of the signs: a bit each, or "plain" for a byte each. A sign's entropy is a bit, so "coded" is "packed".
    """

    entrywise = True

    zeros: Zeros = "plus"
    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)
        if self.zeros not in get_args(Zeros):
            raise InputError(f"zeros: {self.zeros!r}; plus or random is needed (the compressor Ternary sends zeros)")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> SignMessage:
        if self.zeros == "random":
            x = torch.cat([random_zeros(row, n) for row, n in zip(x.split(1), noise, strict=True)])
        bits, finite = signs.pack(x)
        return SignMessage(bits, finite, x.shape[1], x.dtype, self.code)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> SignMessage:
        bits, finite = signs.pack(like.new_zeros(num_rows, sum(segments)))
        return SignMessage(bits, finite, sum(segments), like.dtype, self.code)

    def num_bits_paper(self, message: Message) -> Tensor:
        assert isinstance(message, SignMessage)
        return torch.full((message.num_rows,), message.dim)

    def contraction(self, segments: Segments) -> None:
        return None  # ‖sign(x)‖ = √d, however short x is


def random_zeros(x: Tensor, noise: Noise) -> Tensor:
    """Return `x` (…, d) with its zeros replaced by ±1 at random, drawn by position."""
    drawn = hashes(noise.key("compression"), x.shape[-1], x.device, noise.start) & 1
    return torch.where(x == 0, (2 * drawn - 1).to(x), x)
