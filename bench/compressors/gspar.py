"""GSpar: draws entries at random, larger ones more often, for the least variance.

Wangni, Wang, Liu, Zhang: Gradient Sparsification for Communication-Efficient Distributed Optimization, NeurIPS 2018.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments, require_density
from bench.errors import InputError
from bench.kernels import draws
from bench.kernels.noise import Noise
from bench.kernels.tails import Tail, tail_of
from bench.wire.hybrid import HybridMessage
from bench.wire.integers import Code, require_code
from bench.wire.message import Message
from bench.wire.ragged import ragged


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
        scales, rows, largest = x.new_empty(len(x), len(segments)), [], torch.finfo(x.dtype).max
        for row, origin, own in zip(x, noise, scales, strict=True):
            for s, part in enumerate(row.split(segments)):
                every = tail_of(part, torch.inf)
                broken = every.num_above > 0
                scale = torch.nan if broken else self.scale(every, partial(tail_of, part), len(part))
                own[s] = min(scale, largest)  # so large that nothing is drawn
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
