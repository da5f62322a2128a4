"""Random-k: sends k entries of every tensor, drawn uniformly at random.

Stich, Cordonnier, Jaggi: Sparsified SGD with Memory, NeurIPS 2018; scaled to be unbiased as in Wangni et al. 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments, require_density
from bench.compressors.topk import kept_counts
from bench.kernels.noise import Noise
from bench.wire.floats import as_bytes, finite_rows
from bench.wire.message import Message
from bench.wire.positions import PositionCode, position_code
from bench.wire.ragged import within
from bench.wire.reader import Reader
from bench.wire.seeded import MOST_SEED, SEED_BITS, SeededEntries
from bench.wire.slices import all_intact
from bench.wire.sparse import SparseMessage


@dataclass(frozen=True)
class SeededMessage(SparseMessage):
    """Entries at positions that follow from a seed, so 32 bits encode all positions.

    `seeds`: (R,) int64. `intact`: (R,) bool, whether the vectors were finite.
    """

    seeds: Tensor
    intact: Tensor
    kind = "seeded"

    @property
    def num_bits(self) -> Tensor:
        return torch.full((self.num_rows,), SEED_BITS + self.bits_of_values)

    @property
    def bound(self) -> Tensor:
        return self.num_bits.double()  # positions follow from the seed

    def encode(self, row: int) -> np.ndarray:
        return np.concatenate([np.array([int(self.seeds[row])], ">u4").view(np.uint8), as_bytes(self.values[row])])

    def decode(self, payloads: Sequence[np.ndarray]) -> "SeededMessage":
        device, readers = self.values.device, list(map(Reader, payloads))
        seeds = [reader.number(MOST_SEED, "seed") for reader in readers]
        values = [reader.floats(self.values.shape[1], self.values, "values") for reader in readers]
        for reader in readers:
            reader.end()
        return replace(
            self,
            indices=_draw(seeds, self.code.segments, self.code.counts).to(device),
            values=torch.stack(values),
            seeds=torch.tensor(seeds, device=device),
            intact=torch.ones(len(seeds), dtype=torch.bool, device=device),
        )

    def finite(self) -> Tensor:
        return self.intact

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        rows, device = list(zip(self.indices, self.values, strict=True)), self.values.device
        return [
            SeededPiece(
                **within(rows, start, end, device),
                intact=self.intact,
                dim=end - start,
                seeds=self.seeds,
                code=self.code,
                start=start,
            )
            for start, end in pairwise(bounds)
        ]

    def joined(self, pieces: Sequence[Message]) -> "SeededMessage":
        first, intact = pieces[0].tensors, all_intact([piece.tensors["intact"] for piece in pieces])
        return replace(super().joined(pieces), seeds=first["seeds"], intact=intact)


@dataclass(frozen=True)
class SeededPiece(SeededEntries):
    """A slice of a `SeededMessage`. `code`: of the whole. `start`: where the slice begins."""

    code: PositionCode
    start: int
    kind = "seeded"

    def drawn(self, seed: int) -> Tensor:
        (positions,) = _draw([seed], self.code.segments, self.code.counts)
        return positions[(positions >= self.start) & (positions < self.start + self.dim)] - self.start


@dataclass(frozen=True)
class RandomK(Compressor):
    """Draws k = max(1, ⌊density · n⌋) entries of each segment of n with equal probability and scales them by n/k.

    Args:
        density: the fraction kept, in (0, 1].
    """

    repeats = False

    density: float

    def __post_init__(self) -> None:
        require_density(self.density)

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> SeededMessage:
        seeds, counts = [origin.entropy("compression") for origin in noise], kept_counts(self.density, segments)
        indices = _draw(seeds, segments, counts).to(x.device)
        factors = [n / k for n, k in zip(segments, counts, strict=True)]
        scale = torch.repeat_interleave(x.new_tensor(factors), torch.tensor(counts, device=x.device))
        return SeededMessage(
            indices,
            x.gather(1, indices) * scale,
            position_code(segments, counts),
            sum(segments),
            seeds=torch.tensor(seeds, device=x.device),
            intact=finite_rows(x),
        )

    def num_bits_paper(self, message: Message) -> Tensor:
        """32 bits per kept value; no positions, as they follow from a shared seed."""
        values = message.tensors["values"]
        return torch.full((len(values),), values.shape[1] * 8 * values.element_size())

    def contraction(self, segments: Segments) -> float | None:
        return 1.0 if self.density == 1 else None  # a drawn entry is scaled up

    def variance(self, segments: Segments) -> float:
        return max(n / k for n, k in zip(segments, kept_counts(self.density, segments), strict=True)) - 1


def _draw(seeds: Sequence[int], segments: Segments, counts: tuple[int, ...]) -> Tensor:
    """Draw positions (R, k): for each seed counts[s] of each segment, in ascending order."""
    rows = []
    for seed in seeds:
        rng, start, parts = np.random.default_rng(seed), 0, []
        for n, k in zip(segments, counts, strict=True):
            parts.append(np.sort(rng.choice(n, k, replace=False, shuffle=False)) + start)
            start += n
        rows.append(np.concatenate(parts))
    return torch.from_numpy(np.stack(rows))
