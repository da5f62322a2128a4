"""Sorted positions on the wire: a Golomb-Rice code of the gaps, or equally many bits for each.

k of n positions, spread at random, need log2 C(n, k) bits at least; coding each gap as a unary quotient and `shift`
low bits comes within half a percent of that at 1 % density (Golomb 1966; Rice 1979). Receiver and sender both know the
segments and the number of positions in each, so neither is sent. A field of 32 bits, which is counted, gives the
length of the unary part.
"""

from abc import ABC, abstractmethod
from functools import cached_property, lru_cache
from math import floor, log, log2, sqrt

import numba
import numpy as np
import torch
from torch import Tensor

from bench.errors import DamagedError
from bench.kernels import masks
from bench.wire.integers import Code
from bench.wire.reader import Reader

LENGTH_BITS = 32


class PositionCode(ABC):
    """Code for rows of sorted positions, `counts[s]` of them in the s-th of consecutive segments.

    Args:
        segments: sizes n_s of the segments, in entries.
        counts: positions k_s kept in each segment, 1 <= k_s <= n_s.

    Attributes:
        name: the name that a config gives it.
    """

    name: Code

    def __init__(self, segments: tuple[int, ...], counts: tuple[int, ...]) -> None:
        self.segments, self.counts = segments, counts
        self.num_positions = sum(counts)

    @abstractmethod
    def num_bits(self, positions: Tensor) -> Tensor:
        """Return the bits (R,) that `encode` writes for each row of sorted positions (R, k)."""

    @abstractmethod
    def encode(self, positions: Tensor) -> np.ndarray:
        """Encode sorted positions (k,) as bytes."""

    @abstractmethod
    def read(self, reader: Reader) -> Tensor:
        """Decode the positions (k,) that come next in a payload.

        Raises:
            DamagedError: the bytes are not such positions.
        """

    def decode(self, payload: np.ndarray) -> Tensor:
        """Decode the positions (k,) that are a whole payload, as `read` does."""
        positions = self.read(reader := Reader(payload))
        reader.end()
        return positions


class Fixed(PositionCode):
    """Equally many bits for each position: 32 ("plain"), or those that a position in its segment needs ("packed")."""

    def __init__(self, segments: tuple[int, ...], counts: tuple[int, ...], name: Code) -> None:
        super().__init__(segments, counts)
        self.name, packed = name, name == "packed"
        self.starts = np.repeat(np.cumsum([0, *segments[:-1]]), counts)
        self.ends = self.starts + np.repeat(segments, counts)
        widths = [(n - 1).bit_length() if packed else 32 for n in segments]
        self.offsets = self.starts if packed else np.zeros_like(self.starts)
        self.widths = np.repeat(widths, counts)

    def num_bits(self, positions: Tensor) -> Tensor:
        return torch.full((len(positions),), int(self.widths.sum()))

    def encode(self, positions: Tensor) -> np.ndarray:
        relative = positions.cpu().numpy() - self.offsets
        digits = np.unpackbits(relative.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
        return np.packbits(digits[np.arange(32) >= 32 - self.widths[:, None]])

    def read(self, reader: Reader) -> Tensor:
        digits = np.zeros((self.num_positions, 32), np.uint8)
        digits[np.arange(32) >= 32 - self.widths[:, None]] = reader.bits(int(self.widths.sum()), "positions")
        positions = np.packbits(digits, axis=1).view(">u4")[:, 0].astype(np.int64) + self.offsets
        if (positions < self.starts).any() or (positions >= self.ends).any() or (np.diff(positions) <= 0).any():
            raise DamagedError("positions: not ascending, or beyond their segment")
        return torch.from_numpy(positions)


class Golomb(PositionCode):
    """The low bits of all gaps, then their quotients in unary."""

    name = "coded"

    def __init__(self, segments: tuple[int, ...], counts: tuple[int, ...]) -> None:
        super().__init__(segments, counts)
        shifts = [rice_shift(k / n) for n, k in zip(segments, counts, strict=True)]
        self.num_low = sum(k * shift for k, shift in zip(counts, shifts, strict=True))
        starts = np.cumsum([0, *segments[:-1]])
        self.arrays = starts, np.array(counts), np.array(shifts)
        self.heads = torch.tensor(np.cumsum([0, *counts[:-1]]))  # where each segment's positions begin, (s,)
        self.before_heads = torch.tensor(starts - 1)  # the position just before each segment, (s,)

    @cached_property
    def shifts(self) -> np.ndarray:
        """(k,) the low bits of each gap."""
        _, counts, shifts = self.arrays
        return np.repeat(shifts, counts)

    def gaps(self, positions: Tensor) -> Tensor:
        """Return the gaps (R, k) of sorted positions (R, k): entries skipped since the last one in the segment."""
        previous = positions.roll(1, dims=1)
        previous[:, self.heads.to(positions.device)] = self.before_heads.to(positions)
        return positions - previous - 1

    def num_bits(self, positions: Tensor) -> Tensor:
        quotients = torch.tensor([_quotients(row, *self.arrays) for row in positions.cpu().numpy()])
        return quotients + LENGTH_BITS + self.num_positions + self.num_low

    def num_bits_of_set(self, found: np.ndarray) -> int:
        """Return the bits that `encode` writes for the positions in a set (`bench.kernels.masks`), of one segment."""
        (shift,) = self.arrays[2]
        return int(_quotients_of_set(found, shift)) + LENGTH_BITS + self.num_positions + self.num_low

    def encode(self, positions: Tensor) -> np.ndarray:
        gaps, shifts = self.gaps(positions[None].cpu())[0].numpy(), self.shifts
        quotients = gaps >> shifts
        ends = np.cumsum(quotients + 1) - 1  # each quotient q is q zeros and a one
        unary = np.zeros(ends[-1] + 1, np.uint8)
        unary[ends] = 1
        length = np.unpackbits(np.array([len(unary)], ">u4").view(np.uint8))
        low = [(gaps[shifts == s, None] >> np.arange(s)) & 1 for s in np.unique(shifts)]
        return np.packbits(np.concatenate([length, *(bits.ravel().astype(np.uint8) for bits in low), unary]))

    def read(self, reader: Reader) -> Tensor:
        num_low, most = self.num_low, self.num_positions + sum(self.segments)
        num_unary = reader.number(most, "length of positions")
        if num_unary < self.num_positions:
            raise DamagedError(f"length of positions: {num_unary}; at least {self.num_positions} is needed")
        bits = reader.bits(num_low + num_unary, "positions")
        shifts = self.shifts
        gaps, at = np.zeros(self.num_positions, np.int64), 0
        for s in np.unique(shifts):
            members = shifts == s
            low = bits[at : (at := at + int(members.sum() * s))].reshape(members.sum(), s)
            gaps[members] = (low.astype(np.int64) << np.arange(s)).sum(axis=1)
        ends = np.flatnonzero(bits[at:])
        if len(ends) != self.num_positions or (num_unary and ends[-1] != num_unary - 1):
            raise DamagedError(f"positions: {len(ends)}; {self.num_positions} are needed")
        gaps += (np.diff(ends, prepend=-1) - 1) << shifts
        # Undo the gaps: a running sum of (gap + 1), restarted at every segment.
        steps = np.cumsum(gaps + 1)
        heads = self.heads.numpy()
        offsets = self.before_heads.numpy() - np.concatenate([[0], steps[heads[1:] - 1]])
        counts = np.diff(heads, append=self.num_positions)
        positions = steps + np.repeat(offsets, counts)
        last, bounds = np.cumsum(counts) - 1, np.cumsum(self.segments)
        if (positions[last[counts > 0]] >= bounds[counts > 0]).any():
            raise DamagedError("positions: beyond the end of their segment")
        return torch.from_numpy(positions)


@numba.njit(nogil=True, cache=True)
def _quotients(positions: np.ndarray, starts: np.ndarray, counts: np.ndarray, shifts: np.ndarray) -> int:
    """Return the sum of the gaps between sorted positions (k,), each shifted."""
    total, first = 0, 0
    for s in range(counts.size):
        part, shift = positions[first : first + counts[s]], shifts[s]
        if part.size and shift == 0:  # all gaps together
            total += part[-1] - starts[s] - (part.size - 1)
        elif part.size:
            total += (part[0] - starts[s]) >> shift
            for i in range(1, part.size):  # no step needs the one before: vector instructions
                total += (part[i] - part[i - 1] - 1) >> shift
        first += counts[s]
    return total


@numba.njit(nogil=True, cache=True)
def _quotients_of_set(found: np.ndarray, shift: int) -> np.int64:
    """Return the sum of the gaps between the positions in a set that is not empty, each shifted."""
    if shift == 0:  # all gaps together: what lies before the last position, but for the positions there
        last = found.size - 1
        while not found[last]:
            last -= 1
        word, position = found[last], np.int64(0)
        while word:
            position = last * masks.WORD + np.int64(masks.lowest(word))
            word &= word - masks.ONE
        return position + 1 - masks.size(found)
    total, previous = np.int64(0), np.int64(-1)
    for i in range(found.size):
        word = found[i]
        for _ in range(masks.num_bits(word)):
            position = i * masks.WORD + np.int64(masks.lowest(word))
            total += (position - previous - 1) >> shift
            previous = position
            word &= word - masks.ONE
    return total


def rice_shift(density: float) -> int:
    """Return the best number of low bits for geometric gaps of mean 1/density (Kiely 2004, eq. 8)."""
    if density >= 1:
        return 0
    golden = (sqrt(5) + 1) / 2
    return max(0, 1 + floor(log2(log(golden - 1) / log(1 - density))))


def make_position_code(segments: tuple[int, ...], counts: tuple[int, ...], code: Code | None = None) -> PositionCode:
    """Return the code of that name for these segments. None is "coded"."""
    return Fixed(segments, counts, code) if code in ("plain", "packed") else Golomb(segments, counts)


position_code = lru_cache(maxsize=16)(make_position_code)
"""The same, built once for the segments of recent messages."""
