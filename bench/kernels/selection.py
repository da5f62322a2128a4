"""Top-k on accelerators: all segments at once, in a few dozen large operations.

A network has dozens of segments, and asking each for its k largest costs an accelerator more in launches than in
work. As in `bench.kernels.passes`, samples guess thresholds slightly too low, one pass finds the survivors, and an
exact selection among those few follows; where a guess was too high, it follows among all entries.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from bench.kernels.passes import HASH, SAMPLE, sample_rank


def top_k(x: Tensor, segments: tuple[int, ...], counts: tuple[int, ...]) -> Tensor:
    """Ascending positions of the counts[s] largest |x| in each segment; of equals, the first. (R, d) -> (R, k).

    NaN and infinity come first.
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
    # Survivors by segment, in each by magnitude, equals by position: the first of each segment are those to keep.
    segment = torch.bucketize(survivors, plan.starts, right=True)
    order = magnitudes[survivors].argsort(descending=True, stable=True)
    order = order[segment[order].argsort(stable=True)]
    kept = before.repeat_interleave(plan.counts, output_size=len(plan.places)) + plan.places
    return survivors[order[kept]].sort().values.view(num_rows, -1) % dim


@dataclass(frozen=True)
class _Plan:
    """What does not depend on the numbers, of S segments of all rows together; on the device.

    Attributes:
        sizes, counts, starts: (S,) of the segments.
        places: (Σ counts,) 0, 1, … anew in each segment.
        sampled: (T,) which segments are long enough to be sampled.
        looked_at: (T, SAMPLE) positions.
        ranks: (T,) which of a sample, largest first, is the threshold.
    """

    sizes: Tensor
    counts: Tensor
    starts: Tensor
    places: Tensor
    sampled: Tensor
    looked_at: Tensor
    ranks: Tensor


@cache
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
