"""A paper's claim as a rule over runs, and what it comes to: it holds, it does not hold, or it is undecided."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError
from bench.findings.experiments import Arm, Experiment
from bench.findings.sample import Sample
from bench.findings.view import View, ViewedRun
from bench.runs.columns import BY_WORKER, COLUMNS

DIVERGED = "diverged"
MEASURES = (*(column for column in COLUMNS if column not in BY_WORKER), DIVERGED)
"""What a rule may be about: a column of histories, or whether a run diverged, 1 or 0."""

LEAST = 3
"""The seeds that a verdict takes."""


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Claim:
    """A claim, and when it holds: if a measure of an arm, over or minus another's, lies between bounds.

    Attributes:
        claim: in our words.
        where: its table, figure or theorem.
        experiment: whose runs speak to it.
        of: the measure, one of `MEASURES`; accuracies in per cent.
        arm: a label. It may leave out settings; of the arms that it then means, the best is taken.
        over, minus: what it is divided by, or what is subtracted: a label, or a paper's number.
        at: whether it is measured at the first evaluation that reached the target, or at the end.
        target: instead of the experiment's own.
        above, below: the bounds.

    Raises:
        InputError: an unknown measure, no bound, or two things to compare with.
    """

    claim: str
    where: str
    experiment: str
    of: str
    arm: str
    over: float | str | None = None
    minus: float | str | None = None
    at: Literal["target", "end"] = "end"
    target: float | None = None
    above: float = -math.inf
    below: float = math.inf

    def __post_init__(self) -> None:
        if self.of not in MEASURES:
            raise InputError(f"of: {self.of!r}; one of {', '.join(MEASURES)} is needed")
        if not self.above < self.below or (self.above, self.below) == (-math.inf, math.inf):
            raise InputError(f"above: {self.above}, below: {self.below}; one is needed, and the second is the larger")
        if self.over is not None and self.minus is not None:
            raise InputError(f"minus: {self.minus!r}; over is given, too, and one of them is allowed")

    @property
    def other(self) -> float | str | None:
        """What the arm is compared with."""
        return self.minus if self.over is None else self.over

    def finding(self, experiment: Experiment) -> "Finding":
        """What the complete runs of the experiment say.

        Raises:
            InputError: a run without this measure, or a ratio of numbers that are not above 0.
        """
        arms = {label: self._best(experiment, label) for label in (self.arm, self.other) if isinstance(label, str)}
        if None in arms.values():
            return Finding(self, experiment, (), Sample((), 0))
        ours, *theirs = ({run.path.name: self._value(run) for run in arm.runs} for arm in arms.values() if arm)
        right = theirs[0] if theirs else dict.fromkeys(ours, self.other)
        pairs = [(value, right[seed]) for seed, value in ours.items() if seed in right]
        fate = "missed" if self.at == "target" else DIVERGED
        values = tuple(self._quantity(a, b) for a, b in pairs if a is not None and (b is not None or not self.other))
        labels = tuple(arm.label for arm in arms.values() if arm)
        return Finding(self, experiment, labels, Sample(values, len(pairs), fate))

    def _best(self, experiment: Experiment, label: str) -> Arm | None:
        """The arm of this label, with its complete runs; the best of those that it may mean; None if none has run."""

        def rank(arm: Arm) -> tuple[int, float]:
            known = [value for run in arm.runs if (value := self._value(run)) is not None]
            mean = sum(known) / len(known) if known else 0.0
            return len(arm.runs) - len(known), -mean if self.of.endswith("accuracy") else mean

        meant = [arm for arm in experiment.complete if means(label, arm.label)]
        return min(meant, key=rank, default=None)

    def _value(self, run: ViewedRun) -> float | None:
        """The measure of a run; None if it missed the target, or diverged."""
        diverged = DIVERGED in run.summary()
        if self.of == DIVERGED:
            return float(diverged)
        if self.target is not None:
            run = replace(run, view=View(target=self.target))
        end = run.target()["round"] if self.at == "target" else None if diverged else run.summary()["round"]
        row = next((row for row in run.history() if row["round"] == end), None)
        if row is None:
            return None
        if row[self.of] is None:
            raise InputError(f"of: {self.of!r}; {run.path} does not tell")
        return row[self.of] * (100 if self.of.endswith("accuracy") else 1)

    def _quantity(self, ours: float, theirs: float | str | None) -> float:
        """What has to lie between the bounds, of one seed; the logarithm of a ratio."""
        if not isinstance(theirs, int | float):
            return ours
        if self.over is None:
            return ours - theirs
        if not (ours > 0 and theirs > 0):
            raise InputError(f"over: {self.over!r}; a ratio takes numbers above 0, {self.of} is {ours} and {theirs}")
        return math.log(ours / theirs)


@dataclass(frozen=True)
class Finding:
    """What runs say on a claim.

    Attributes:
        labels: of the arms compared; none if one of them has no complete run.
        sample: the quantity by seed, in pairs of the seeds that both arms have; of a ratio, its logarithm.
    """

    claim: Claim
    experiment: Experiment
    labels: tuple[str, ...]
    sample: Sample

    @property
    def value(self) -> float | None:
        """The mean; of a ratio, the geometric one."""
        return None if self.sample.mean is None else self._shown(self.sample.mean)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval, by Student's t; None for fewer than two seeds."""
        low, high = self.sample.interval or (None, None)
        return None if low is None or high is None else (self._shown(low), self._shown(high))

    @property
    def verdict(self) -> Literal["holds", "does not hold", "undecided"]:
        """Undecided if a seed missed the target or diverged, too, as its number is not known."""
        if self.interval is None or len(self.sample.values) < LEAST or self.sample.missed:
            return "undecided"
        (low, high), above, below = self.interval, self.claim.above, self.claim.below
        if above < low and high < below:
            return "holds"
        return "does not hold" if high <= above or below <= low else "undecided"

    def _shown(self, mean: float) -> float:
        return mean if self.claim.over is None else math.exp(mean)


def means(given: str, label: str) -> bool:
    """Whether a label is the given one, or that one with further settings."""
    wanted, there = Arm(given, []), Arm(label, [])
    return wanted.name == there.name and wanted.settings.items() <= there.settings.items()
