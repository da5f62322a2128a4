"""Which value of a tuned setting is best, where a grid asks for the best."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.findings.experiments import Arm
from bench.runs.columns import FALLING


class Tuned(NamedTuple):
    """What a grid tunes: a swept setting, by the final value of a metric."""

    setting: str
    metric: str

    @classmethod
    def asked(cls, spec: Mapping[str, Any]) -> "Tuned | None":
        """What an experiment's file asks for, as `figure.best` or as `table.best`; None if it tunes nothing."""
        figure, table = (spec.get(key) or {} for key in ("figure", "table"))
        if best := figure.get("best"):
            return cls(best, figure.get("y", ["test_accuracy"])[0])
        if table.get("best"):
            return cls(table["across"], table.get("metric", "test_accuracy"))
        return None

    def best(self, arms: Sequence[Arm]) -> list[Arm]:
        """Of each group of arms that differ in the setting only, the best; a diverged seed counts as the worst."""
        groups: dict[tuple[Any, ...], list[Arm]] = {}
        for arm in arms:
            others = tuple((key, value) for key, value in arm.settings.items() if key != self.setting)
            groups.setdefault((arm.name, *others), []).append(arm)
        return [(min if self.metric in FALLING else max)(group, key=self._end) for group in groups.values()]

    def _end(self, arm: Arm) -> float:
        worst = np.inf if self.metric in FALLING else -np.inf
        summaries = [run.summary() for run in arm.runs]
        return float(np.mean([worst if "diverged" in each else each[self.metric] for each in summaries]))
