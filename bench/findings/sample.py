"""A number over seeds, and a paper's number to compare with it."""

import math
from dataclasses import dataclass, field
from statistics import mean, stdev

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Sample:
    """A number over seeds: the `values` of the runs that have it, out of `num_runs`; `fate` says why others lack it.

    `seeds`: of these runs, where they are known.
    """

    values: tuple[float, ...]
    num_runs: int
    fate: str = "missed"
    seeds: tuple[str, ...] = field(default=(), compare=False)

    @property
    def mean(self) -> float | None:
        return mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n − 1); None for fewer than two values."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def missed(self) -> int:
        return self.num_runs - len(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean, by Student's t; None for fewer than two values."""
        if (std := self.std) is None:
            return None
        half = float(student_t.ppf(0.975, len(self.values) - 1)) * std / math.sqrt(len(self.values))
        return mean(self.values) - half, mean(self.values) + half


@dataclass(frozen=True)
class Ratio:
    """A ratio of means over the same seeds on both sides: so many out of `num_runs`."""

    value: float
    num_seeds: int
    num_runs: int

    @classmethod
    def of(cls, above: Sample, below: Sample) -> "Ratio | None":
        """The ratio of two samples; None if they share no seed, or if it would be infinite."""
        ours, dense = (dict(zip(each.seeds, each.values, strict=True)) for each in (below, above))
        if not (common := [seed for seed in dense if seed in ours]):
            return None
        if not (divisor := mean(ours[seed] for seed in common)):
            return None
        return cls(mean(dense[seed] for seed in common) / divisor, len(common), max(above.num_runs, below.num_runs))


@dataclass(frozen=True)
class Theirs:
    """A paper's number, with ours for comparison."""

    value: float
    ours: "Sample | Ratio | float | None"

    @property
    def difference(self) -> float | None:
        """(ours − theirs) / theirs; None if we have no number."""
        if isinstance(self.ours, Ratio):
            return self.ours.value / self.value - 1
        ours = self.ours.mean if isinstance(self.ours, Sample) else self.ours
        return None if ours is None else ours / self.value - 1

    @property
    def is_outside(self) -> bool | None:
        """Whether the paper's number lies outside our 95 % interval; None if we have no interval."""
        interval = self.ours.interval if isinstance(self.ours, Sample) else None
        return None if interval is None else not interval[0] <= self.value <= interval[1]
