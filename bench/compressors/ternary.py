"""Ternary: −1, 0 or +1 per entry, where 0 is an entry of a majority vote without votes or with a tie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.kernels.noise import Noise
from bench.wire.bounds import entropies
from bench.wire.columnar import Columnar
from bench.wire.integers import Code, IntegerCode, integer_code, require_code
from bench.wire.message import Message
from bench.wire.reader import Reader
from bench.wire.trits import TRITS_OF_VECTOR


@dataclass(frozen=True)
class TernaryMessage(Columnar):
    """Each entry is −1, 0 or +1. `values`: (R, d) int8. `intact`: (R,) bool, whether the vectors were finite.

    `code`: of the values.
    """

    values: Tensor
    intact: Tensor
    dtype: torch.dtype
    code: IntegerCode = TRITS_OF_VECTOR
    kind = "ternary"
    of_entries = ("values",)

    @property
    def num_bits(self) -> Tensor:
        return torch.tensor([self.code.num_bits(row, (len(row),)) for row in self.values.cpu().numpy()])

    @property
    def bound(self) -> Tensor:
        return entropies(self.values, self.values.shape[1:])

    def encode(self, row: int) -> np.ndarray:
        return self.code.encode(self.values[row].cpu().numpy(), self.values.shape[1:])

    def decode(self, payloads: Sequence[np.ndarray]) -> "TernaryMessage":
        values = torch.stack([self._decoded(Reader(payload)) for payload in payloads]).to(self.values.device)
        return replace(self, values=values, intact=torch.ones(len(values), dtype=torch.bool, device=values.device))

    def _decoded(self, reader: Reader) -> Tensor:
        values = self.code.read(reader, self.values.shape[1:])
        reader.end()
        return torch.from_numpy(values)

    def dense(self) -> Tensor:
        return self.values.to(self.dtype)

    def finite(self) -> Tensor:
        return self.intact


@dataclass(frozen=True)
class Ternary(Compressor):
    """C(x) = sign(x), with three values: zeros stay zero.

    Args:
        code: of the values: the shortest of `bench.wire.trits`, or "plain", "packed" or "coded".
    """

    entrywise = True

    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> TernaryMessage:
        code = integer_code(self.code, TRITS_OF_VECTOR)
        return TernaryMessage(x.sign().to(torch.int8), x.isfinite().all(dim=1), x.dtype, code)

    def num_bits_paper(self, message: Message) -> Tensor:
        return replace(message, code=TRITS_OF_VECTOR).num_bits  # pyright: ignore[reportCallIssue, reportArgumentType]

    def contraction(self, segments: Segments) -> None:
        return None  # ‖sign(x)‖ = √d without zeros, however short x is
