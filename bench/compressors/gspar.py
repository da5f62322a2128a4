"""GSpar: draws entries at random, larger ones more often, for the least variance.

Wangni, Wang, Liu, Zhang: Gradient Sparsification for Communication-Efficient Distributed Optimization, NeurIPS 2018.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments, require_density
from bench.errors import DamagedError, InputError
from bench.kernels import draws
from bench.kernels.noise import Noise
from bench.kernels.passes import is_compiled
from bench.wire import signs, trits
from bench.wire.bounds import entropies, set_bits
from bench.wire.floats import as_bytes, bits_of_floats
from bench.wire.integers import Code, Coded, IntegerCode, require_code
from bench.wire.message import Message
from bench.wire.positions import PositionCode, make_position_code
from bench.wire.ragged import RaggedMessage, ragged
from bench.wire.reader import Reader
from bench.wire.slices import cut_segments, join_segments

COUNT_BITS = 32  # the field with the number of entries sent as floats
CODED_TRITS = Coded(-1, 1)


@dataclass(frozen=True)
class HybridMessage(RaggedMessage):
    """The paper's hybrid code: entries drawn with probability 1 are sent as floats, other drawn entries as ±scale.

    `scales`: (R, S) of each segment, 1/λ in the paper. The wire carries the scales, the positions and values of the
    entries whose magnitude is not the scale, and those that are ±scale as a ternary vector.

    `code`: of positions and of the ternary vector; "packed" sends positions and signs of the ±scale entries instead, as
    the paper counts them, and "plain" positions and values of all entries.
    """

    scales: Tensor
    segments: Segments
    code: Code | None
    kind = "hybrid"

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        pieces: list[Message] = []
        for start, end in pairwise(bounds):
            sizes, there = cut_segments(self.segments, start, end)
            entries = self.within(start, end)
            pieces.append(replace(self, **entries, dim=end - start, scales=self.scales[:, there], segments=sizes))
        return pieces

    def joined(self, pieces: Sequence[Message]) -> "HybridMessage":
        whole, slices = super().joined(pieces), [piece for piece in pieces if isinstance(piece, HybridMessage)]
        assert isinstance(whole, HybridMessage)
        scales = join_segments([p.scales for p in slices], [p.dim for p in slices], self.segments)
        return replace(whole, scales=scales)

    def parts(self, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return positions and values of the entries sent as floats, and those of the ±scale entries."""
        indices, values = self.entries(row)
        if self.code == "plain":
            return indices, values, indices[:0], values[:0]
        return self.split[row][:4]

    @cached_property
    def split(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """For every row: positions and values of the entries sent as floats, those of the ±scale entries, and how many
        of each kind there are in every segment, (2, S)."""
        return [_split(*self.entries(row), self.scales[row], self.segments) for row in range(self.num_rows)]

    @property
    def num_bits(self) -> Tensor:
        return torch.tensor([self._num_bits(row) for row in range(self.num_rows)])

    def _num_bits(self, row: int) -> int:
        indices, values, scaled, signed = self.parts(row)
        num_bits = bits_of_floats(self.scales) + bits_of_floats(values[None]) + self._bits_of_positions(indices)
        if self.code == "plain":
            return num_bits
        if self.code == "packed":
            return num_bits + len(signed) + self._bits_of_positions(scaled)
        if self.code == "coded":
            return num_bits + CODED_TRITS.num_bits(self._ternary(scaled, signed).numpy(), self.segments)
        return num_bits + trits.num_bits_of_entries(scaled.cpu().numpy(), self.dim)

    def _bits_of_positions(self, indices: Tensor) -> int:
        """Return the bits of their number and of the positions."""
        if not len(indices):
            return COUNT_BITS
        return COUNT_BITS + int(self._positions(len(indices)).num_bits(indices[None].cpu()))

    @property
    def _trits(self) -> IntegerCode:
        return CODED_TRITS if self.code == "coded" else trits.TRITS_OF_VECTOR

    def _positions(self, count: int) -> PositionCode:
        return make_position_code((self.dim,), (count,), self.code)

    @property
    def bound(self) -> Tensor:
        totals = []
        for row in range(self.num_rows):
            indices, values, scaled, signed = replace(self, code=None).parts(row)
            floats = bits_of_floats(self.scales) + bits_of_floats(values[None])
            entropy = entropies(self._ternary(scaled, signed)[None], self.segments)
            totals.append(floats + set_bits((self.dim,), (len(indices),)) + entropy)
        return torch.cat(totals)

    def encode(self, row: int) -> np.ndarray:
        indices, values, scaled, signed = self.parts(row)
        fields = [as_bytes(self.scales[row]), *self._encoded(indices, as_bytes(values))]
        if self.code == "packed":
            fields += self._encoded(scaled, signs.pack(signed[None])[0][0].cpu().numpy())
        elif self.code != "plain":
            fields.append(self._trits.encode(self._ternary(scaled, signed).numpy(), self.segments))
        return np.concatenate(fields)

    def _encoded(self, indices: Tensor, values: np.ndarray) -> list[np.ndarray]:
        """Return their number, the bytes of their values, and the positions."""
        fields = [np.array([len(indices)], ">u4").view(np.uint8), values]
        return [*fields, self._positions(len(indices)).encode(indices)] if len(indices) else fields

    def _ternary(self, scaled: Tensor, signed: Tensor) -> Tensor:
        """Return the ±scale entries as a vector (d,) int8 of −1, 0 and 1, on the CPU."""
        return torch.zeros(self.dim, dtype=torch.int8).scatter_(0, scaled.cpu(), signed.sign().to(torch.int8).cpu())

    def decode(self, payloads: Sequence[np.ndarray]) -> "HybridMessage":
        scales, rows = zip(*map(self._decoded, payloads), strict=True)
        device = self.values.device
        intact = torch.ones(len(rows), dtype=torch.bool, device=device)
        return replace(self, **ragged(rows, device), intact=intact, scales=torch.stack(scales).to(device))

    def _decoded(self, payload: np.ndarray) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Decode bytes to the scales (S,), and the positions and values of the entries."""
        reader, like = Reader(payload), self.values.new_empty(0, device="cpu")
        scales = reader.floats(self.scales.shape[1], like, "scales")
        count = reader.number(self.dim, "number of floats")
        values = reader.floats(count, like, "values")
        indices, ternary = self._read_positions(reader, count), torch.zeros(self.dim, dtype=torch.int8)
        if self.code == "packed":
            count = reader.number(self.dim, "number of signs")
            signed = signs.unpack(reader.packed_signs(count)[None], like.new_empty(1, count))[0]
            ternary[self._read_positions(reader, count)] = signed.to(torch.int8)
        elif self.code != "plain":
            ternary = torch.from_numpy(self._trits.read(reader, self.segments))
        reader.end()
        if ternary[indices].any():
            raise DamagedError("positions: an entry is sent twice")
        scaled = ternary.nonzero()[:, 0]
        scale = scales[segment_of(scaled, self.segments)]
        indices, order = torch.cat([indices, scaled]).sort()
        return scales, (indices, torch.cat([values, scale.copysign(ternary[scaled])])[order])

    def _read_positions(self, reader: Reader, count: int) -> Tensor:
        return self._positions(count).read(reader) if count else torch.empty(0, dtype=torch.int64)


class Tail(NamedTuple):
    """Statistics of the entries of a part (n,) whose magnitude is below a threshold; NaN and infinity never are."""

    num_above: int
    sum: float  # Σ |x| below
    squares: float  # Σ x² below
    num_zeros: int


class Drawn(Compressor):
    """Sends entry i with probability p_i = min(|x_i| / scale, 1), as x_i / p_i: x_i itself, or ±scale.

    Hence E C(x) = x. With the right scale, these probabilities have the least variance of all with the same sum.
    """

    repeats = False
    code: Code | None

    @abstractmethod
    def scale(self, every: Tail, tail: Callable[[float], Tail], num_entries: int) -> float:
        """Return 1/λ of a finite segment.

        Args:
            every: the tail below infinity, which is the whole segment.
            tail: threshold -> the segment's tail below it.
            num_entries: n.
        """

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> HybridMessage:
        scales, rows = x.new_empty(len(x), len(segments)), []
        for row, origin, own in zip(x, noise, scales, strict=True):
            for s, part in enumerate(row.split(segments)):
                every = tail_of(part, torch.inf)
                broken = every.num_above > 0
                own[s] = torch.nan if broken else self.scale(every, partial(tail_of, part), len(part))
            rows.append(draws.drawn(row, segments, own, origin.key("compression")))
        intact = scales.isfinite().all(dim=1)
        drawn = ragged(rows, x.device)
        return HybridMessage(**drawn, intact=intact, dim=x.shape[1], scales=scales, segments=segments, code=self.code)

    def num_bits_paper(self, message: Message) -> Tensor:
        """Sum of the bits of all segments, with n entries each and b bits per float (section 3.3).

        Each entry sent as a float takes b + log₂ n. The ±scale entries take 1 + log₂ n each, or 2n together if that
        is less. The scale takes b.
        """
        assert isinstance(message, HybridMessage)
        floats = 8 * message.values.element_size()
        sizes = torch.tensor(message.segments, dtype=torch.float64)
        totals = []
        for row in range(message.num_rows):
            num_exact, num_scaled = message.split[row][4]
            rest = torch.minimum(num_scaled * (1 + sizes.log2()), 2 * sizes)
            totals.append((num_exact * (floats + sizes.log2()) + rest + floats).sum())
        return torch.stack(totals).round().long()

    def contraction(self, segments: Segments) -> None:
        return None  # an entry with a small probability is scaled up without bound


@dataclass(frozen=True)
class GSpar(Drawn):
    """Algorithm 3, greedy: raises Σ p_i towards ρn by sharing the budget that certain entries leave among the others.

    With λ = 1/scale each iteration is λ ← (ρn − #{λ|x_i| ≥ 1}) / Σ_{λ|x_i| < 1} |x_i|, until λ stops growing. If ρn
    covers all non-zero entries, all are sent, which is the limit of the iterations.

    Args:
        density: ρ, the expected fraction sent of each segment, in (0, 1].
        iterations: the most iterations after the initial λ; the paper takes 2.
        code: of `HybridMessage`; None is the shortest list of ±scale entries.
    """

    density: float
    iterations: int = 2
    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)
        require_density(self.density)
        if self.iterations < 0:
            raise InputError(f"iterations: {self.iterations}; at least 0 is needed")

    def scale(self, every: Tail, tail: Callable[[float], Tail], num_entries: int) -> float:
        budget = self.density * num_entries
        if num_entries - every.num_zeros <= budget:
            return 0.0
        scale = every.sum / budget
        for _ in range(self.iterations):
            rest = tail(scale)
            left = budget - rest.num_above
            if left <= 0 or not 0 < rest.sum < scale * left:
                break
            scale = rest.sum / left
        return scale

    def variance(self, segments: Segments) -> float:
        """1/ρ: Σ x²/p ≤ ‖x‖₁² / (ρn) over entries with p < 1, and ‖x‖₁² ≤ n‖x‖²."""
        return 1 / self.density


@dataclass(frozen=True)
class GSparClosed(Drawn):
    """Algorithm 2, closed form: the fewest entries in expectation such that Σ x_i²/p_i ≤ (1 + ε) Σ x_i².

    λ = Σ_{i>k} |x_(i)| / (ε Σ x² + Σ_{i>k} x_(i)²) for the smallest k whose next entry has λ|x_(k+1)| ≤ 1. Starting
    from k = 0, the next k is the number of entries at or above 1/λ. λ never decreases, so this finds k without sorting.

    Args:
        epsilon: ε, the allowed variance as a fraction of ‖x‖²; above 0.
        code: of `HybridMessage`; None is the shortest list of ±scale entries.
    """

    epsilon: float
    code: Code | None = None

    def __post_init__(self) -> None:
        require_code(self.code)
        if not 0 < self.epsilon < float("inf"):
            raise InputError(f"epsilon: {self.epsilon}; a finite number above 0 is needed")

    def scale(self, every: Tail, tail: Callable[[float], Tail], num_entries: int) -> float:
        rest, num_above, scale = every, -1, 0.0
        while rest.num_above > num_above and rest.sum > 0:
            num_above = rest.num_above
            scale = (self.epsilon * every.squares + rest.squares) / rest.sum
            rest = tail(scale)
        return scale

    def variance(self, segments: Segments) -> float:
        return self.epsilon


def tail_of(x: Tensor, threshold: float) -> Tail:
    """Return the tail of a part (n,) below a threshold."""
    if is_compiled(x):
        return Tail(*_tail(x.detach().numpy(), np.float32(threshold)))
    magnitudes = x.abs()
    below = magnitudes < threshold
    rest = torch.where(below, magnitudes, 0).double()
    num_below, num_zeros = int(below.sum()), int((x == 0).sum())
    return Tail(len(x) - num_below, float(rest.sum()), float(rest.square().sum()), num_zeros)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})  # any order of summation, for SIMD
def _tail(x: np.ndarray, threshold: Any) -> tuple[int, float, float, int]:
    num_above, total, squares, num_zeros = 0, 0.0, 0.0, 0
    for i in range(x.size):
        magnitude = abs(x[i])
        below = magnitude < threshold
        value = np.float64(magnitude) if below else 0.0
        total += value
        squares += value * value
        num_above += not below
        num_zeros += magnitude == 0
    return num_above, total, squares, num_zeros


def segment_of(indices: Tensor, segments: Segments) -> Tensor:
    """Return the index of the segment that each position lies in."""
    ends = torch.tensor(segments, device=indices.device).cumsum(0)
    return torch.bucketize(indices, ends, right=True)


def _split(
    indices: Tensor, values: Tensor, scales: Tensor, segments: Segments
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do as `HybridMessage.split` does for a row."""
    if not is_compiled(values):
        where = segment_of(indices, segments)
        scaled = values.abs() == scales[where]
        counts = [torch.bincount(where[of].cpu(), minlength=len(segments)) for of in (~scaled, scaled)]
        return indices[~scaled], values[~scaled], indices[scaled], values[scaled], torch.stack(counts)
    positions, entries = torch.empty(2, len(indices) + 1, dtype=torch.int64), values.new_empty(2, len(indices) + 1)
    counts = torch.zeros(2, len(segments), dtype=torch.int64)
    arrays = (t.numpy() for t in (indices, values, scales, positions, entries, counts))
    exact, scaled = _divide(np.cumsum(segments), *arrays)
    return positions[0, :exact], entries[0, :exact], positions[1, :scaled], entries[1, :scaled], counts


@numba.njit(nogil=True, cache=True)
def _divide(
    ends: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    scales: np.ndarray,
    positions: np.ndarray,
    entries: np.ndarray,
    counts: np.ndarray,
) -> Any:
    segment, exact, scaled = 0, 0, 0
    for i in range(indices.size):
        while indices[i] >= ends[segment]:
            segment += 1
        is_scaled = np.int64(abs(values[i]) == scales[segment])
        positions[0, exact] = positions[1, scaled] = indices[i]  # always written: no branch to predict
        entries[0, exact] = entries[1, scaled] = values[i]
        scaled += is_scaled
        exact += 1 - is_scaled
        counts[is_scaled, segment] += 1
    return exact, scaled
