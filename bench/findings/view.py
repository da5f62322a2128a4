"""How a run is looked at: on which network, and at which target. Neither changes what was recorded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.algorithm import Algorithm
from bench.configured import instantiate
from bench.errors import InputError
from bench.findings.elapsed import elapsed
from bench.link import LinkModel
from bench.runs.columns import Row
from bench.runs.results import RunFolder
from bench.runs.targets import refuse_target, target_reached


@dataclass(frozen=True)
class View:
    """Settings that replace what the runs were recorded with.

    Args:
        link: the network whose seconds are shown; None for each run's own.
        step_ms: a worker's computation of one batch of the experiment's file, in milliseconds. Runs of other batches
            take as much longer as these are larger.
        overlap: the share of it during which messages can travel, if the recipe's can before the gradient is whole.
        target: a value of the metric of each run's target; None for the experiment's own.
        rounds: (first, last) evaluations; costs are those in between, instead of those at the target.

    Raises:
        InputError: a negative time, an overlap outside [0, 1], a target that is not finite, or rounds that do not
            ascend.
    """

    link: LinkModel | None = None
    step_ms: float = 0.0
    overlap: float = 0.0
    target: float | None = None
    rounds: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.step_ms >= 0:
            raise InputError(f"step_ms: {self.step_ms}; at least 0 is needed")
        if not 0 <= self.overlap <= 1:
            raise InputError(f"overlap: {self.overlap}; a share between 0 and 1 is needed")
        if self.target is not None and not math.isfinite(self.target):
            raise InputError(f"target: {self.target}; a finite number is needed")
        if self.rounds is not None and not 0 <= self.rounds[0] < self.rounds[1]:
            raise InputError(f"rounds: {self.rounds[0]}-{self.rounds[1]}; a first and a later last round are needed")

    @property
    def retimes(self) -> bool:
        """Whether seconds are other ones than those that were recorded."""
        return self.link is not None or self.step_ms > 0

    @property
    def told(self) -> str:
        """In words."""
        link = self.link.told if self.link else "each run's own network"
        step = f"step_ms={self.step_ms:g}, overlap={self.overlap:g}" if self.step_ms else "communication only"
        return f"{link}; {step}"

    def seconds(
        self, rows: Sequence[Row], algorithm: Algorithm, link: LinkModel, passes: float = 1
    ) -> list[float | None]:
        """The seconds since the first round at each row; None where a row lacks what they follow from.

        Args:
            rows: of a history.
            algorithm: the recipe that ran.
            link: the network.
            passes: how many backward passes take as long as one on a batch of the experiment's file.
        """
        try:
            link.refuse(algorithm)
        except InputError:
            return [None] * len(rows)
        step_s = self.step_ms / 1e3
        return elapsed(rows, link, step_s / passes, self.overlap * step_s if algorithm.overlaps else 0.0)


AS_RECORDED = View()


@dataclass(frozen=True)
class ViewedRun(RunFolder):
    """A run under a view.

    Args:
        view: how to look at it.
        aim: the experiment's target, if its file has one; else the run's own counts.
        batch_size: that of the experiment's file, if it has one.
    """

    view: View = AS_RECORDED
    aim: Mapping[str, Any] | None = None
    batch_size: int | None = None

    @cached_property
    def algorithm(self) -> Algorithm:
        """The recipe that ran."""
        return instantiate(self.config()["algorithm"])

    @cached_property
    def num_parts(self) -> int:
        """Into how many parts a batch is cut, with a backward pass each."""
        if (steps := self.algorithm.local_steps) is not None:
            return steps.num_steps
        estimator = instantiate(self.config().get("estimator"))
        return estimator.num_parts if estimator else 1

    @property
    def passes(self) -> float:
        """How many of its backward passes take as long as one on a batch of the experiment's file: methods with local
        steps often have a larger batch a round, of which each step takes a part."""
        own = self.config().get("data", {}).get("batch_size")
        return self.num_parts * (self.batch_size / own if own and self.batch_size else 1)

    def config(self) -> dict[str, Any]:
        """The config of the run. The file is read once."""
        return self._config

    @cached_property
    def _config(self) -> dict[str, Any]:
        return super().config()

    def history(self) -> list[Row]:
        """The rows, with the seconds of the view's network as `modelled_s`, if it has one. The file is read once."""
        return self._seen

    @cached_property
    def _seen(self) -> list[Row]:
        rows = super().history()
        if not (rows and self.view.retimes):
            return rows
        link = self.view.link or instantiate(self.config()["link"])
        times = self.view.seconds(rows, self.algorithm, link, self.passes)
        return [row | {"modelled_s": time} for row, time in zip(rows, times, strict=True)]

    def target(self) -> dict[str, Any]:
        """The target (metric and value), and the figures of the first row that is better; None where it was missed.

        Raises:
            InputError: the run has no such metric.
        """
        aim = self.aim or self.config()["target"]
        metric, value = aim["metric"], aim["value"] if self.view.target is None else self.view.target
        if metric.endswith("accuracy") and not 0 <= value <= 1:
            raise InputError(f"target: {value:g}; a share from 0 to 1 is needed, as {metric} is")
        rows = self.history()
        refuse_target(metric, rows[-1] if rows else None)
        return target_reached(rows, metric, value)
