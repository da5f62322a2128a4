"""Cuts values that belong to segments, such as scales, where a vector is cut into slices."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


def cut_segments(segments: Sequence[int], start: int, end: int) -> tuple[tuple[int, ...], slice]:
    """Return the sizes of the segments between two entries, and which of all segments these are.

    A segment that crosses a bound belongs to both slices, each of which has its value.
    """
    ends = list(accumulate(segments, initial=0))
    there = [s for s, size in enumerate(segments) if size and ends[s] < end and ends[s + 1] > start]
    sizes = tuple(min(ends[s + 1], end) - max(ends[s], start) for s in there)
    return sizes, slice(there[0], there[-1] + 1) if there else slice(0, 0)


def join_segments(columns: Sequence[Tensor], sizes: Sequence[int], segments: Sequence[int]) -> Tensor:
    """Put the slices' values of segments together again.

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
    """Return where consecutive slices of these sizes begin and end."""
    return [(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def all_intact(pieces: Sequence[Tensor]) -> Tensor:
    """Return (R,) bool: which rows are intact in every slice."""
    return torch.stack(list(pieces)).all(dim=0)
