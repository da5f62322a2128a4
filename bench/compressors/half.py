"""Half: every entry as a float of 16 bits. It costs hardly anything, and is what other compression has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.kernels.sums import sum_in_order
from bench.wire.dense import FloatMessage
from bench.wire.floats import finite_rows
from bench.wire.message import Message
from bench.wire.slices import all_intact

Format = Literal["bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class HalfMessage(FloatMessage):
    """`values`: (R, d), of 16 bits. `intact`: (R,) bool, whether the vectors were finite. `dtype`: of the vectors."""

    intact: Tensor
    dtype: torch.dtype
    kind = "half"
    cuttable = True

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        return [replace(self, values=self.values[:, start:end]) for start, end in pairwise(bounds)]

    def joined(self, pieces: Sequence[Message]) -> Self:
        values, intact = ([piece.tensors[name] for piece in pieces] for name in ("values", "intact"))
        return replace(self, values=torch.cat(values, dim=1), intact=all_intact(intact))

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        intact = torch.ones(len(payloads), dtype=torch.bool, device=self.values.device)
        return replace(super().decode(payloads), intact=intact)

    def dense(self) -> Tensor:
        return self.values.to(self.dtype)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        if weights is not None:
            return super().sum(weights)
        return sum_in_order([self.values[0].to(self.dtype), *self.values[1:]])  # in the precision of the first

    def finite(self) -> Tensor:
        return self.intact


@dataclass(frozen=True)
class Half(Compressor):
    """The nearest float of 16 bits; an entry beyond the largest becomes that, 65,504 in fp16.

    The server adds up in the precision of the vectors; a ring would round at every hop.

    Args:
        format: "bf16", the range of 32 bits and 8 binary digits, or "fp16", less range and 11 binary digits.
    """

    all_reducible = entrywise = True

    format: Format = "bf16"

    def __post_init__(self) -> None:
        if self.format not in DTYPES:
            raise InputError(f"format: {self.format!r}; one of {', '.join(get_args(Format))} is needed")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> HalfMessage:
        dtype = DTYPES[self.format]
        largest = torch.finfo(dtype).max
        return HalfMessage(x.clamp(-largest, largest).to(dtype), finite_rows(x), x.dtype)

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.num_bits

    def contraction(self, segments: Segments) -> float:
        return 0.0  # near the smallest float all of an entry may be lost, and never more
