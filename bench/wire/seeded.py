"""Sparse messages whose positions follow from a seed, which 32 bits encode."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from bench.wire.floats import as_bytes
from bench.wire.ragged import RaggedMessage, ragged
from bench.wire.reader import Reader

SEED_BITS = 32
MOST_SEED = 2**SEED_BITS - 1


@dataclass(frozen=True)
class SeededEntries(RaggedMessage):
    """Entries at positions that follow from a seed. `seeds`: (R,) int64."""

    seeds: Tensor

    @abstractmethod
    def drawn(self, seed: int) -> Tensor:
        """Return the ascending positions (k,) that follow from a seed, on the CPU."""

    @property
    def num_bits(self) -> Tensor:
        return SEED_BITS + self.counts.cpu() * 8 * self.values.element_size()

    def encode(self, row: int) -> np.ndarray:
        seed = np.array([int(self.seeds[row])], ">u4").view(np.uint8)
        return np.concatenate([seed, as_bytes(self.entries(row)[1])])

    def decode(self, payloads: Sequence[np.ndarray]) -> Self:
        rows, seeds, like, device = [], [], self.values.new_empty(0, device="cpu"), self.values.device
        for reader in map(Reader, payloads):
            seeds.append(reader.number(MOST_SEED, "seed"))
            indices = self.drawn(seeds[-1])
            rows.append((indices, reader.floats(len(indices), like, "values")))
            reader.end()
        intact = torch.ones(len(rows), dtype=torch.bool, device=device)
        return replace(self, **ragged(rows, device), intact=intact, seeds=torch.tensor(seeds, device=device))
