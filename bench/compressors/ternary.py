"""Ternary: −1, 0 or +1 per entry, where 0 is an entry of a majority vote without votes or with a tie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.kernels.noise import Noise
from bench.wire import trits
from bench.wire.bounds import entropies
from bench.wire.message import Message
from bench.wire.slices import all_intact


@dataclass(frozen=True)
class TernaryMessage(Message):
    """Each entry is −1, 0 or +1. `values`: (R, d) int8. `intact`: (R,) bool, whether the vectors were finite."""

    values: Tensor
    intact: Tensor
    dtype: torch.dtype
    kind = "ternary"
    cuttable = True

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        return [replace(self, values=self.values[:, start:end]) for start, end in pairwise(bounds)]

    def joined(self, pieces: Sequence[Message]) -> "TernaryMessage":
        values, intact = ([piece.tensors[name] for piece in pieces] for name in ("values", "intact"))
        return replace(self, values=torch.cat(values, dim=1), intact=all_intact(intact))

    @property
    def num_bits(self) -> Tensor:
        return torch.tensor([trits.num_bits(row) for row in self.values.cpu().numpy()])

    @property
    def bound(self) -> Tensor:
        return entropies(self.values, self.values.shape[1:])

    def encode(self, row: int) -> np.ndarray:
        return trits.encode(self.values[row].cpu().numpy())

    def decode(self, payloads: Sequence[np.ndarray]) -> "TernaryMessage":
        rows = np.stack([trits.decode(payload, self.values.shape[1]) for payload in payloads])
        values = torch.from_numpy(rows).to(self.values.device)
        return TernaryMessage(values, torch.ones(len(rows), dtype=torch.bool, device=values.device), self.dtype)

    def dense(self) -> Tensor:
        return self.values.to(self.dtype)

    def finite(self) -> Tensor:
        return self.intact


@dataclass(frozen=True)
class Ternary(Compressor):
    """C(x) = sign(x), with three values: zeros stay zero."""

    entrywise = True

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> TernaryMessage:
        return TernaryMessage(x.sign().to(torch.int8), x.isfinite().all(dim=1), x.dtype)

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.num_bits

    def contraction(self, segments: Segments) -> None:
        return None  # ‖sign(x)‖ = √d without zeros, however short x is
