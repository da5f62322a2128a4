"""What belongs to segments, such as scales, where a vector is cut into slices."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


def cut_segments(segments: Sequence[int], start: int, end: int) -> tuple[tuple[int, ...], slice]:
    """The sizes that segments have between two entries, and which of the segments those are.

    A segment that goes over a bound is in both slices, with what belongs to it.
    """
    ends = list(accumulate(segments, initial=0))
    there = [s for s, size in enumerate(segments) if size and ends[s] < end and ends[s + 1] > start]
    sizes = tuple(min(ends[s + 1], end) - max(ends[s], start) for s in there)
    return sizes, slice(there[0], there[-1] + 1) if there else slice(0, 0)


def join_segments(columns: Sequence[Tensor], sizes: Sequence[int], segments: Sequence[int]) -> Tensor:
    """The inverse for what belongs to segments.

    Args:
        columns: (R, S') of every slice.
        sizes: of the slices, in entries.
        segments: of the whole vector.

    Returns:
        (R, S).
    """
    whole = columns[0].new_empty(len(columns[0]), len(segments))
    for part, (start, end) in zip(columns, spans(sizes), strict=True):
        whole[:, cut_segments(segments, start, end)[1]] = part
    return whole


def spans(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Where consecutive slices of these sizes begin and end."""
    return [(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def all_intact(pieces: Sequence[Tensor]) -> Tensor:
    """(R,) bool of every slice -> of the whole."""
    return torch.stack(list(pieces)).all(dim=0)
