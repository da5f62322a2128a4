"""A figure over seeds, and a paper's beside it."""

import math
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Sample:
    """A figure over seeds: those that have it, out of `num_runs`; `fate` is what befell the others."""

    values: tuple[float, ...]
    num_runs: int
    fate: str = "missed"

    @property
    def mean(self) -> float | None:
        return mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """With n − 1; None below two values."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def missed(self) -> int:
        return self.num_runs - len(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean lies with 95 % confidence, by Student's t; None below two values."""
        if (std := self.std) is None:
            return None
        half = float(student_t.ppf(0.975, len(self.values) - 1)) * std / math.sqrt(len(self.values))
        return mean(self.values) - half, mean(self.values) + half


@dataclass(frozen=True)
class Theirs:
    """A paper's figure, beside ours."""

    value: float
    ours: "Sample | float | None"

    @property
    def difference(self) -> float | None:
        """Ours less theirs, as a share of theirs; None where we have none."""
        ours = self.ours.mean if isinstance(self.ours, Sample) else self.ours
        return None if ours is None else ours / self.value - 1

    @property
    def is_outside(self) -> bool | None:
        """Whether it lies outside of our 95 % interval; None where we have none."""
        interval = self.ours.interval if isinstance(self.ours, Sample) else None
        return None if interval is None else not interval[0] <= self.value <= interval[1]
