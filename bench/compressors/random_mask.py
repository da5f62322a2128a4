"""A random share of the entries, the same at all workers.

Baioumy, Cheema: SPARTA: Sparse Parameter Averaging for Low-Communication Training, 2025.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.floats import finite_rows
from bench.wire.message import Message
from bench.wire.ragged import ragged
from bench.wire.seeded import SeededEntries


@dataclass(frozen=True)
class MaskedMessage(SeededEntries):
    """The entries that a seed draws. `share`: of all, on average."""

    share: float
    kind = "masked"
    cuttable = False

    def drawn(self, seed: int) -> Tensor:
        return _masked(seed, self.dim, self.share)


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
    gaps[(gaps < 1) | (gaps > dim)] = dim + 1  # where the next lies beyond the end, or beyond 64 bits
    positions = np.cumsum(gaps) - 1
    assert positions[-1] >= dim - 1
    return torch.from_numpy(positions[positions < dim])
