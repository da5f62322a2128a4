"""A number over seeds, and a paper's number to compare with it."""

import math
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Sample:
    """A number over seeds: the `values` of the runs that have it, out of `num_runs`; `fate` says why others lack it."""

    values: tuple[float, ...]
    num_runs: int
    fate: str = "missed"

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
class Theirs:
    """A paper's number, with ours for comparison."""

    value: float
    ours: "Sample | float | None"

    @property
    def difference(self) -> float | None:
        """(ours − theirs) / theirs; None if we have no number."""
        ours = self.ours.mean if isinstance(self.ours, Sample) else self.ours
        return None if ours is None else ours / self.value - 1

    @property
    def is_outside(self) -> bool | None:
        """Whether the paper's number lies outside our 95 % interval; None if we have no interval."""
        interval = self.ours.interval if isinstance(self.ours, Sample) else None
        return None if interval is None else not interval[0] <= self.value <= interval[1]
