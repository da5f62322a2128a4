"""Top-k on accelerators: all segments at once, in a few dozen large operations.

A network has dozens of segments, and a separate top-k for each costs an accelerator more in launches than in work. As
in `bench.kernels.passes`, samples give thresholds slightly too low, one pass finds the survivors, and an exact
selection among those few follows. If any threshold is too high, the selection runs on all entries instead.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from bench.kernels.passes import HASH, SAMPLE


def top_k(x: Tensor, segments: tuple[int, ...], counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return ascending positions of the counts[s] largest |x| in each segment, first ones at ties, and the entries
    there: (R, d) -> (R, k), (R, k).

    NaN and infinity count as the largest.
    """
    num_rows, dim = x.shape
    plan = _plan(segments, counts, num_rows, x.device)
    magnitudes = x.flatten().abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    thresholds = magnitudes.new_full((len(plan.sizes),), -1)
    if len(plan.sampled):
        samples = magnitudes[plan.looked_at].sort(dim=1, descending=True).values
        thresholds[plan.sampled] = samples.gather(1, plan.ranks[:, None])[:, 0]
    survivors = (magnitudes >= thresholds.repeat_interleave(plan.sizes, output_size=x.numel())).nonzero()[:, 0]
    before = torch.searchsorted(survivors, plan.starts)  # survivors of earlier segments
    if (before.diff(append=before.new_tensor([len(survivors)])) < plan.counts).any():
        survivors, before = torch.arange(x.numel(), device=x.device), plan.starts
    # Sort survivors by segment, then by magnitude, then by position; the first counts[s] of each segment are kept.
    segment = torch.bucketize(survivors, plan.starts, right=True)
    order = magnitudes[survivors].argsort(descending=True, stable=True)
    order = order[segment[order].argsort(stable=True)]
    kept = before.repeat_interleave(plan.counts, output_size=len(plan.places)) + plan.places
    positions = survivors[order[kept]].sort().values.view(num_rows, -1) % dim
    return positions, x.gather(1, positions)


def sample_rank(n: int, k: int) -> int:
    """Return the rank (largest first) of the sampled entry that serves as threshold; 0 if sampling does not pay.

    With high probability the entry of this rank among SAMPLE ones is no larger than the k-th of n.
    """
    expected = SAMPLE * k / n
    rank = int(expected + 4 * expected**0.5 + 4)  # four standard deviations: a threshold too high is rare
    return rank if n > 4 * SAMPLE and rank < SAMPLE // 2 else 0


@dataclass(frozen=True)
class _Plan:
    """Index tensors on the device that do not depend on the values. S counts the segments of all rows together.

    Attributes:
        sizes, counts, starts: (S,) of the segments.
        places: (Σ counts,) 0, 1, …, starting again in each segment.
        sampled: (T,) the segments for which sampling pays.
        looked_at: (T, SAMPLE) the sampled positions.
        ranks: (T,) the index of the threshold in a sample, largest first.
    """

    sizes: Tensor
    counts: Tensor
    starts: Tensor
    places: Tensor
    sampled: Tensor
    looked_at: Tensor
    ranks: Tensor


@lru_cache(maxsize=16)  # counts may change from round to round
def _plan(segments: tuple[int, ...], counts: tuple[int, ...], num_rows: int, device: torch.device) -> _Plan:
    sizes, kept = torch.tensor(segments * num_rows), torch.tensor(counts * num_rows)
    starts = sizes.cumsum(0) - sizes
    ranks = [sample_rank(n, k) for n, k in zip(sizes.tolist(), kept.tolist(), strict=True)]
    sampled = torch.tensor([s for s, rank in enumerate(ranks) if rank], dtype=torch.int64)
    hashed = (torch.arange(SAMPLE) * int(HASH)) & 0xFFFFFFFF
    looked_at = starts[sampled, None] + (hashed * sizes[sampled, None] >> 32)
    places = torch.cat([torch.arange(k) for k in kept.tolist()])
    threshold_ranks = torch.tensor([ranks[s] for s in sampled.tolist()], dtype=torch.int64) - 1
    return _Plan(*(t.to(device) for t in (sizes, kept, starts, places, sampled, looked_at, threshold_ranks)))
