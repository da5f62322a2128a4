"""A random share of the entries, the same at all workers.

Baioumy, Cheema: SPARTA: Sparse Parameter Averaging for Low-Communication Training, 2025.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.floats import as_bytes, finite_rows
from bench.wire.message import Message
from bench.wire.ragged import RaggedMessage, ragged
from bench.wire.reader import Reader

SEED_BITS = 32
MOST_SEED = 2**SEED_BITS - 1


@dataclass(frozen=True)
class MaskedMessage(RaggedMessage):
    """Entries at positions that follow from a seed. `seeds`: (R,) int64. `share`: of the entries, on average."""

    seeds: Tensor
    share: float
    kind = "masked"
    cuttable = False

    @property
    def num_bits(self) -> Tensor:
        return SEED_BITS + self.counts.cpu() * 8 * self.values.element_size()

    def encode(self, row: int) -> np.ndarray:
        seed = np.array([int(self.seeds[row])], ">u4").view(np.uint8)
        return np.concatenate([seed, as_bytes(self.entries(row)[1])])

    def decode(self, payloads: Sequence[np.ndarray]) -> "MaskedMessage":
        rows, seeds, like, device = [], [], self.values.new_empty(0, device="cpu"), self.values.device
        for reader in map(Reader, payloads):
            seeds.append(reader.number(MOST_SEED, "seed"))
            indices = _masked(seeds[-1], self.dim, self.share)
            rows.append((indices, reader.floats(len(indices), like, "values")))
            reader.end()
        intact = torch.ones(len(rows), dtype=torch.bool, device=device)
        return replace(self, **ragged(rows, device), intact=intact, seeds=torch.tensor(seeds, device=device))


@dataclass(frozen=True)
class RandomMask(Compressor):
    """Keeps each entry with one probability, drawn once a round for all workers and their server; nothing is scaled.

    Args:
        share: the probability, in (0, 1].
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"share: {self.share}; a fraction in (0, 1] is needed")

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> MaskedMessage:
        seeds = [origin._replace(rank=0).entropy("mask") for origin in noise]
        places = [_masked(seed, x.shape[1], self.share).to(x.device) for seed in seeds]
        rows = [(indices, row[indices]) for indices, row in zip(places, x, strict=True)]
        return MaskedMessage(
            **ragged(rows, x.device),
            intact=finite_rows(x),
            dim=x.shape[1],
            seeds=torch.tensor(seeds, device=x.device),
            share=self.share,
        )

    def num_bits_paper(self, message: Message) -> Tensor:
        """32 bits for each value that is sent."""
        return message.tensors["counts"].cpu() * 8 * message.tensors["values"].element_size()

    def contraction(self, segments: Segments) -> float:
        """0 for the worst vector; `share` on average."""
        return 1.0 if self.share == 1 else 0.0


def _masked(seed: int, dim: int, share: float) -> Tensor:
    """Ascending positions, each of `dim` with probability `share`: their gaps are geometric."""
    rng, expected = np.random.default_rng(seed), dim * share
    gaps = rng.geometric(share, int(expected + 10 * expected**0.5) + 20)  # reach beyond the end but for once in 10²⁰
    positions = np.cumsum(gaps) - 1
    assert positions[-1] >= dim - 1
    return torch.from_numpy(positions[positions < dim])
