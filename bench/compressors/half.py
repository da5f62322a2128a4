"""Half: every entry as a 16-bit float. It costs almost no computation: the baseline for other compressors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.kernels.sums import sum_in_order
from bench.wire.columnar import Columnar
from bench.wire.dense import FloatMessage
from bench.wire.floats import finite_rows
from bench.wire.message import Message

Format = Literal["bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class HalfMessage(FloatMessage, Columnar):
    """`values`: (R, d), 16 bits each. `intact`: (R,) bool, whether the vectors were finite. `dtype`: of the vectors."""

    intact: Tensor
    dtype: torch.dtype
    kind = "half"
    of_entries = ("values",)

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        intact = torch.ones(len(payloads), dtype=torch.bool, device=self.values.device)
        return replace(super().decode(payloads), intact=intact)

    def dense(self) -> Tensor:
        return self.values.to(self.dtype)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        if weights is not None:
            return super().sum(weights)
        return sum_in_order([self.values[0].to(self.dtype), *self.values[1:]])  # summed in the vectors' precision

    def finite(self) -> Tensor:
        return self.intact


@cache
def _largest(*dtypes: torch.dtype) -> float:
    """The largest number that all of these formats have."""
    most = min(torch.finfo(dtype).max for dtype in dtypes)
    for dtype in dtypes:
        rounded = torch.tensor(most, dtype=torch.float64).to(dtype)
        if float(rounded) > most:
            most = float(torch.nextafter(rounded, torch.zeros_like(rounded)))
    return most


@dataclass(frozen=True)
class Half(Compressor):
    """Rounds every entry to the nearest 16-bit float; clamps it to the largest finite one, 65,504 in fp16.

    The server sums in the precision of the vectors; a real ring would round at every hop.

    Args:
        format: "bf16" (the range of float32, 8 significant bits) or "fp16" (a smaller range, 11 significant bits).
    """

    all_reducible = entrywise = True

    format: Format = "bf16"

    def __post_init__(self) -> None:
        if self.format not in DTYPES:
            raise InputError(f"format: {self.format!r}; one of {', '.join(get_args(Format))} is needed")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> HalfMessage:
        dtype = DTYPES[self.format]
        largest = _largest(dtype, x.dtype)
        return HalfMessage(x.clamp(-largest, largest).to(dtype), finite_rows(x), x.dtype)

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.num_bits

    def contraction(self, segments: Segments) -> float:
        return 0.0  # an entry near the smallest float may round to zero: all of it is lost, but never more
