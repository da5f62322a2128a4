"""Sign: one bit per entry.

Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: Compressed Optimisation for Non-Convex Problems, ICML 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from bench.wire.message import Message
from bench.wire.reader import Reader

Zeros = Literal["plus", "random"]


@dataclass(frozen=True)
class SignMessage(Columnar):
    """Each entry is ±1. `bits`: (R, ⌈d/8⌉) uint8, as `signs.pack` writes them. `dim`: d. `dtype`: of the vectors.

    `intact`: (R,) bool, whether the vectors were finite; messages of others are never sent.
    """

    bits: Tensor
    intact: Tensor
    dim: int
    dtype: torch.dtype
    kind = "sign"
    fixed_size = True
    of_bits = ("bits",)

    @property
    def num_bits(self) -> Tensor:
        return torch.full((self.num_rows,), self.dim)

    def encode(self, row: int) -> np.ndarray:
        return self.bits[row].cpu().numpy()

    def decode(self, payloads: Sequence[np.ndarray]) -> "SignMessage":
        bits = torch.stack([self._decoded(Reader(payload)) for payload in payloads]).to(self.bits.device)
        intact = torch.ones(len(bits), dtype=torch.bool, device=bits.device)
        return SignMessage(bits, intact, self.dim, self.dtype)

    def _decoded(self, reader: Reader) -> Tensor:
        bits = reader.packed_signs(self.dim)
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
    """

    entrywise = True

    zeros: Zeros = "plus"

    def __post_init__(self) -> None:
        if self.zeros not in get_args(Zeros):
            raise InputError(f"zeros: {self.zeros!r}; plus or random is needed (the compressor Ternary sends zeros)")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> SignMessage:
        if self.zeros == "random":
            x = torch.cat([random_zeros(row, n) for row, n in zip(x.split(1), noise, strict=True)])
        bits, finite = signs.pack(x)
        return SignMessage(bits, finite, x.shape[1], x.dtype)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> SignMessage:
        bits, finite = signs.pack(like.new_zeros(num_rows, sum(segments)))
        return SignMessage(bits, finite, sum(segments), like.dtype)

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.num_bits

    def contraction(self, segments: Segments) -> None:
        return None  # ‖sign(x)‖ = √d, however short x is


def random_zeros(x: Tensor, noise: Noise) -> Tensor:
    """Return `x` (…, d) with its zeros replaced by ±1 at random, drawn by position."""
    drawn = hashes(noise.key("compression"), x.shape[-1], x.device, noise.start) & 1
    return torch.where(x == 0, (2 * drawn - 1).to(x), x)
