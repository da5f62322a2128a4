"""How a run is looked at: on which network, and at which target. Neither changes what was recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.utils import instantiate

from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.link import LinkModel
from bench.runs.columns import Row
from bench.runs.results import RunFolder
from bench.runs.targets import refuse_target, target_reached
from bench.traffic import Traffic


@dataclass(frozen=True)
class View:
    """Settings that replace what the runs were recorded with.

    Args:
        link: the network whose seconds are shown; None for each run's own.
        step_ms: a worker's computation of one batch, in milliseconds, for each backward pass that a run took.
        overlap: the share of it during which messages can travel, if the recipe's can before the gradient is whole.
        target: a value of the metric of each run's target; None for the experiment's own.

    Raises:
        InputError: a negative time, or an overlap outside [0, 1].
    """

    link: LinkModel | None = None
    step_ms: float = 0.0
    overlap: float = 0.0
    target: float | None = None

    def __post_init__(self) -> None:
        if not self.step_ms >= 0:
            raise InputError(f"step_ms: {self.step_ms}; at least 0 is needed")
        if not 0 <= self.overlap <= 1:
            raise InputError(f"overlap: {self.overlap}; a share between 0 and 1 is needed")

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

    def seconds(self, rows: Sequence[Row], algorithm: Algorithm, link: LinkModel) -> list[float | None]:
        """The seconds since the first round at each row; None where a row lacks what they follow from."""
        try:
            link.refuse(algorithm)
        except InputError:
            return [None] * len(rows)
        overlap_s = self.overlap * self.step_ms / 1e3 if algorithm.overlaps else 0.0
        total, times = 0.0, list[float | None]()
        rounds, passes, before = 0, 0, None
        for row in rows:
            if (traffic := Traffic.of(row)) is None:
                times.append(None)
                continue
            new = row["round"] - rounds
            steps_s = (row["num_backwards"] - passes) / traffic.num_workers * self.step_ms / 1e3
            sent_s = link.seconds(traffic if before is None else traffic - before)
            total += steps_s + max(0.0, sent_s - new * overlap_s)
            rounds, passes, before = row["round"], row["num_backwards"], traffic
            times.append(total)
        return times


AS_RECORDED = View()


@dataclass(frozen=True)
class ViewedRun(RunFolder):
    """A run under a view.

    Args:
        view: how to look at it.
        aim: the experiment's target, if its file has one; else the run's own counts.
    """

    view: View = AS_RECORDED
    aim: Mapping[str, Any] | None = None

    @cached_property
    def algorithm(self) -> Algorithm:
        """The recipe that ran."""
        return instantiate(self.config()["algorithm"])

    def history(self) -> list[Row]:
        """The rows, with the seconds of the view's network as `modelled_s`, if it has one."""
        rows = super().history()
        if not (rows and self.view.retimes):
            return rows
        link = self.view.link or instantiate(self.config()["link"])
        times = self.view.seconds(rows, self.algorithm, link)
        return [row | {"modelled_s": time} for row, time in zip(rows, times, strict=True)]

    def target(self) -> dict[str, Any]:
        """The target (metric and value), and the figures of the first row that is better; None where it was missed.

        Raises:
            InputError: the run has no such metric.
        """
        aim = self.aim or self.config()["target"]
        metric, value = aim["metric"], aim["value"] if self.view.target is None else self.view.target
        rows = self.history()
        refuse_target(metric, rows[-1] if rows else None)
        return target_reached(rows, metric, value)
