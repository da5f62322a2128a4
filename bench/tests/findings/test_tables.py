"""Tables at equal bits and of seconds say what the histories of committed runs do."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import InputError
from bench.findings.budgets import budget_table
from bench.findings.experiments import Experiment
from bench.findings.pay import COLLECTIVES
from bench.findings.sample import Sample
from bench.findings.seconds import common, seconds_table
from bench.findings.tables import cost_table
from bench.findings.view import View, ViewedRun

RESULTS = Path(__file__).parents[3] / "results"
SMALL = "pretraining_small_tuned"
RACES = (SMALL, "showdown_tuned")


def values(cell: object) -> tuple[float, ...]:
    """Of a cell over seeds; none of an empty one."""
    assert cell is None or isinstance(cell, Sample)
    return cell.values if cell else ()


@pytest.mark.parametrize("name", RACES)
def test_equal_bits(name: str) -> None:
    """Each seed's last row within the budget; in the end what the table of costs says."""
    experiment = Experiment.read(name, RESULTS)
    metric = experiment.spec["target"]["metric"]
    unit = 100 if metric == "test_accuracy" else 1
    budgets = (1, 1e6, 3.3e7, 4e8, 1e9, 1e12)
    rows = {str(row["recipe"]): row for row in budget_table(experiment, budgets).rows}
    ends = {str(row["recipe"]): row["final"] for row in cost_table(experiment, at="end").rows}
    assert rows.keys() == ends.keys()
    for label, row in rows.items():
        assert row["bits=1"] is None
        assert values(row["bits=1e+12"]) == values(ends[label])
        for budget in budgets:
            expected = []
            for file in sorted((RESULTS / name / label).glob("*/history.csv")):
                there = list(csv.DictReader(file.read_text("utf-8").splitlines()))
                within = [float(each[metric]) for each in there if float(each["total_bits"]) <= budget]
                expected += [unit * within[-1]] if within else []
            assert values(row[f"bits={budget:g}"]) == pytest.approx(tuple(expected))


def test_seconds_are_those_of_the_quickest_collective() -> None:
    """The same as in tables under a view of each network."""
    aim, bandwidths = 2.55, (1e8, 1e10)
    rows = seconds_table(Experiment.read(SMALL, RESULTS), bandwidths, 5e-5, 20, 0.5, aim).rows
    for bandwidth in bandwidths:
        told: dict[object, list[tuple[float, ...]]] = {}
        for kind in COLLECTIVES.values():
            view = View(kind(bandwidth, 5e-5), 20, 0.5, aim)
            for row in cost_table(Experiment.read(SMALL, RESULTS, view)).rows:
                told.setdefault(row["recipe"], []).append(values(row.get("modelled_s")))
        for row in rows:
            quickest = min(filter(None, told[row["recipe"]]), key=lambda own: sum(own) / len(own), default=())
            assert values(row[f"bandwidth={bandwidth:g}"]) == quickest


@pytest.mark.parametrize("name", RACES)
def test_all_come_to_the_common_target(name: str) -> None:
    """And not to one that is better in its third digit."""
    experiment = Experiment.read(name, RESULTS)
    metric = experiment.spec["target"]["metric"]
    falls = metric == "val_loss"
    aim = common(experiment.complete, metric)
    best: Callable[..., float] = min if falls else max
    ends = [best(row[metric] for row in run.history()) for arm in experiment.complete for run in arm.runs]
    better = aim - 0.01 if falls else aim + 0.001
    assert all(end < aim if falls else end > aim for end in ends)
    assert not all(end < better if falls else end > better for end in ends)


class Lost(ViewedRun):
    """Diverged after its last evaluation."""

    def summary(self) -> dict[str, Any]:
        return {**super().summary(), "diverged": "round 31: the loss is not finite"}


def test_who_diverged_has_no_value_from_then_on() -> None:
    """Nor has it a say in the common target."""
    whole = Experiment.read(SMALL, RESULTS)
    seen = {arm.label: arm for arm in whole.complete}
    worst = seen["sparse_signs"]
    lost = replace(worst, runs=[Lost(worst.runs[0].path), *worst.runs[1:]])
    experiment = replace(whole, arms=[seen["adamw"], lost])
    row = next(row for row in budget_table(experiment, [1e7, 1e9]).rows if row["recipe"] == "sparse_signs")
    early, late = row["bits=1e+07"], row["bits=1e+09"]
    assert isinstance(early, Sample)
    assert isinstance(late, Sample)
    assert (early.missed, late.missed, late.fate) == (0, 1, "diverged")
    total = row["total_bits"]
    assert isinstance(total, Sample)
    assert (total.missed, total.fate) == (1, "diverged"), "what it sent until then is not what it sends in all"
    assert common(experiment.complete, "val_loss") < 2.4 < 2.9 < common(whole.complete, "val_loss")


def test_what_cannot_be_asked() -> None:
    experiment = Experiment.read(SMALL, RESULTS)
    given: Any
    for given in ([], [0, 1], [2, 1], [1, 1], ["30Mbit"], 1e8, [1e8, "1Gbit"]):
        with pytest.raises(InputError, match=r"tables.bits: .*; a list of numbers above 0 that rise is needed"):
            budget_table(experiment, given)
        with pytest.raises(InputError, match=r"tables.bandwidth_bps: .*; a list of numbers above 0 that rise"):
            seconds_table(experiment, given, 5e-5, 20)
    with pytest.raises(InputError, match="step_ms: -1; at least 0"):
        seconds_table(experiment, [1e8], 5e-5, -1)


@pytest.mark.parametrize("metric", ["val_loss", "test_accuracy"])
def test_every_run_is_better_than_the_common_target(metric: str) -> None:
    """Also where the worst run's best value has few digits."""
    for hundredths in range(10, 1000):
        run = SimpleNamespace(history=lambda at=hundredths / 100: [{metric: at}], summary=dict)
        arms: Any = [SimpleNamespace(runs=[run])]
        aim, worst = common(arms, metric), hundredths / 100
        assert (aim - worst if metric == "val_loss" else worst - aim) == pytest.approx(0, abs=0.011 * worst)
        assert aim > worst if metric == "val_loss" else aim < worst
