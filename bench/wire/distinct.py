"""Vectors of few distinct values: each segment's values once, and for every entry which one it is.

Sums of ternary messages that share a scale are such vectors: 2M + 1 multiples of it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from bench.errors import DamagedError
from bench.wire import ans
from bench.wire.floats import as_bytes
from bench.wire.reader import Reader

MOST = 255  # distinct values in a segment
COUNT_BITS = 8
SLOTS = 1024  # of the table in which values are looked up, a power of two
HASH = np.uint64(0x9E3779B97F4A7C15)
INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}


class Distinct(NamedTuple):
    """A vector in this form.

    Attributes:
        values: of each segment, ascending, −0 before +0.
        ranks: (d,) int16, which value an entry has, counted from the first that is not below zero.
        model: of the ranks' code.
        num_bits: of all.
    """

    values: list[Tensor]
    ranks: np.ndarray
    model: ans.Model
    num_bits: int


def distinct(row: Tensor, segments: Sequence[int], most_bits: int) -> Distinct | None:
    """Return a vector (d,) in this form; None if a segment has too many values, or it takes more bits than that."""
    patterns = row.detach().cpu().contiguous().view(torch.uint8).numpy().view(INTEGERS[row.element_size()])
    ranks, values, end = np.empty(len(row), np.int16), [], 0
    for size in segments:
        start, end = end, end + size
        found = np.empty(MOST, patterns.dtype)
        count = _find(patterns[start:end], found, ranks[start:end])
        if count < 0:
            return None
        floats = torch.from_numpy(found[:count].copy().view(np.uint8)).view(row.dtype)
        keys = floats.double().numpy()
        order = np.lexsort((~np.signbit(keys), keys))
        places = np.empty(count, np.int16)
        places[order] = np.arange(count) - int((keys < 0).sum())
        _rename(ranks[start:end], places)
        values.append(floats[torch.from_numpy(order)])
    num_bits = sum(COUNT_BITS + len(own) * 8 * row.element_size() for own in values)
    if num_bits >= most_bits or (model := ans.model(ranks, segments)) is None:
        return None
    num_bits += model.num_bits
    return Distinct(values, ranks, model, num_bits) if num_bits < most_bits else None


def encode(vector: Distinct, segments: Sequence[int]) -> np.ndarray:
    """Encode a vector as bytes."""
    counts = np.array([len(own) for own in vector.values], np.uint8)
    return np.concatenate(
        [counts, as_bytes(torch.cat(vector.values)), ans.encode(vector.ranks, segments, vector.model)]
    )


def read(reader: Reader, segments: Sequence[int], like: Tensor) -> Tensor:
    """Decode the vector (d,) that makes up the rest of a payload, of `like`'s dtype and device.

    Raises:
        DamagedError: the bytes are not such a vector.
    """
    counts = reader.bytes(len(segments), "numbers of values").astype(np.int64)
    values = reader.floats(int(counts.sum()), like.new_empty(0, device="cpu"), "values")
    ranks = ans.read(reader, segments, -MOST, MOST)
    parts = []
    for own, part in zip(values.split(counts.tolist()), np.split(ranks, np.cumsum(segments)[:-1]), strict=True):
        places = part + int((own < 0).sum())
        if len(part) and not 0 <= places.min() <= places.max() < len(own):
            raise DamagedError(f"ranks: one is not among {len(own)} values")
        parts.append(own[torch.from_numpy(places)])
    return torch.cat(parts).to(like.device)


@numba.njit(nogil=True, cache=True)
def _find(patterns: np.ndarray, found: np.ndarray, ranks: np.ndarray) -> Any:
    """Write the distinct patterns and which one each entry has; return their number, −1 if there is no room."""
    table, keys, count = np.full(SLOTS, np.int16(-1)), np.zeros(SLOTS, patterns.dtype), 0
    for i in range(patterns.size):
        pattern = patterns[i]
        slot = np.int64((np.uint64(pattern) * HASH) >> np.uint64(54))
        if keys[slot] != pattern or table[slot] < 0:  # rarely true, so that the branch is predicted
            while table[slot] >= 0 and keys[slot] != pattern:
                slot = (slot + 1) & (SLOTS - 1)
            if table[slot] < 0:
                if count == found.size:
                    return -1
                table[slot], keys[slot], found[count] = np.int16(count), pattern, pattern
                count += 1
        ranks[i] = table[slot]
    return count


@numba.njit(nogil=True, cache=True)
def _rename(ranks: np.ndarray, places: np.ndarray) -> None:
    for i in range(ranks.size):
        ranks[i] = places[ranks[i]]
