"""UniSp: draws all entries with equal probability, the baseline of the GSpar paper.

Wangni, Wang, Liu, Zhang: Gradient Sparsification for Communication-Efficient Distributed Optimization, NeurIPS 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log2

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments, require_density
from bench.kernels import draws
from bench.kernels.noise import Noise
from bench.wire.floats import as_bytes, finite_rows
from bench.wire.message import Message
from bench.wire.ragged import RaggedMessage, ragged
from bench.wire.reader import Reader

KEY_BITS = 64


@dataclass(frozen=True)
class KeyedMessage(RaggedMessage):
    """Entries at positions that follow from a key, so 64 bits encode all positions.

    `keys`: (R, 2) int64. `start`: where in the vector the entries begin.
    """

    keys: Tensor
    density: float
    start: int = 0
    kind = "keyed"

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        return [
            replace(self, **self.within(first, end), dim=end - first, start=self.start + first)
            for first, end in pairwise(bounds)
        ]

    def joined(self, pieces: Sequence[Message]) -> "KeyedMessage":
        whole = super().joined(pieces)
        assert isinstance(whole, KeyedMessage)
        return replace(whole, keys=pieces[0].tensors["keys"])

    @property
    def num_bits(self) -> Tensor:
        return KEY_BITS + self.counts.cpu() * 8 * self.values.element_size()

    def encode(self, row: int) -> np.ndarray:
        _, values = self.entries(row)
        return np.concatenate([self.keys[row].cpu().numpy().astype(">u4").view(np.uint8), as_bytes(values)])

    def decode(self, payloads: Sequence[np.ndarray]) -> "KeyedMessage":
        like, device = self.values.new_empty(0, device="cpu"), self.values.device
        keys, rows = [], []
        for reader in map(Reader, payloads):
            keys.append(key := reader.bytes(KEY_BITS // 8, "key").copy().view(">u4").astype(np.int64))
            indices = _positions(self.dim, self.density, (int(key[0]), int(key[1])), like.device, self.start)
            rows.append((indices, reader.floats(len(indices), like, "values")))
            reader.end()
        intact = torch.ones(len(rows), dtype=torch.bool, device=device)
        return replace(self, **ragged(rows, device), intact=intact, keys=torch.from_numpy(np.stack(keys)).to(device))


@dataclass(frozen=True)
class UniSp(Compressor):
    """Sends every entry with probability ρ, as x_i / ρ.

    Args:
        density: ρ, in (0, 1].
    """

    repeats = False

    density: float

    def __post_init__(self) -> None:
        require_density(self.density)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> KeyedMessage:
        keys = [origin.key("compression") for origin in noise]
        drawn = [_positions(x.shape[1], self.density, key, x.device) for key in keys]
        rows = [(indices, row.index_select(0, indices) / self.density) for row, indices in zip(x, drawn, strict=True)]
        return KeyedMessage(
            **ragged(rows, x.device),
            intact=finite_rows(x),
            dim=x.shape[1],
            keys=torch.tensor(keys, device=x.device),
            density=self.density,
            start=0,
        )

    def num_bits_paper(self, message: Message) -> Tensor:
        """b + log₂ d per entry, as the GSpar paper counts entries sent as floats of b bits."""
        assert isinstance(message, KeyedMessage)
        one = 8 * message.values.element_size() + log2(message.dim)
        return (message.counts.cpu() * one).round().long()

    def contraction(self, segments: Segments) -> float | None:
        return 1.0 if self.density == 1 else None  # a drawn entry is scaled up

    def variance(self, segments: Segments) -> float:
        return 1 / self.density - 1


def _positions(dim: int, density: float, key: draws.Key, device: torch.device, start: int = 0) -> Tensor:
    ones = torch.ones(dim, device=device)
    return draws.drawn(ones, (dim,), ones.new_tensor([1 / density]), key, start)[0]
