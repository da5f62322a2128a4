"""What every arm has learned by the time it has sent so many bits."""

import math
from collections.abc import Mapping, Sequence

from bench.findings.asked import refuse_falling
from bench.findings.captions import absent, num_seeds
from bench.findings.experiments import Arm, Experiment
from bench.findings.look import STYLES, TITLES, engineering
from bench.findings.sample import Sample
from bench.findings.table import Column, Entry, Table


def budget_table(experiment: Experiment, bits: Sequence[float]) -> Table:
    """The target's metric at equal bits: one row per arm, by what it sends in all, one column per budget.

    Args:
        experiment: with at least one complete run.
        bits: budgets, rising: of all workers and the server, both ways, on the wire.

    Raises:
        InputError: no budgets, or they do not rise.
    """
    refuse_falling("tables.bits", bits)
    arms = experiment.complete
    metric = arms[0].runs[0].target()["metric"]
    rows: list[dict[str, Entry]] = []
    for arm in arms:
        ended = [run.history()[-1] for run in arm.runs if run.history() and "diverged" not in run.summary()]
        total = tuple(float(last["total_bits"]) for last in ended)
        cells = {f"bits={budget:g}": _learned(arm, metric, budget) for budget in bits}
        rows.append({"recipe": arm.label, **cells, "total_bits": Sample(total, len(arm.runs), "diverged")})
    rows.sort(key=_sent)
    style = STYLES.get(metric, "power")
    columns = [Column(f"bits={budget:g}", f"{engineering(budget)}bit", style) for budget in bits]
    unit = ", %," if style == "percent" else ""
    caption = (
        f"{experiment.name}: {TITLES[metric]}{unit} at the last evaluation before all workers and the server have sent"
        f" more bits than this; mean ± standard deviation over n = {num_seeds(arms)} seeds. Empty: the first evaluation"
        " comes later. Who sends less in all keeps what it ends with."
    )
    last = Column("total_bits", "bits in all", "bits")
    title = f"{TITLES[metric].capitalize()} at equal bits"
    return Table(caption + absent(experiment), [Column("recipe", "recipe", "name"), *columns, last], rows, title=title)


def _sent(row: Mapping[str, Entry]) -> float:
    total = row["total_bits"]
    assert isinstance(total, Sample)
    return math.inf if total.mean is None else total.mean


def _learned(arm: Arm, metric: str, budget: float) -> Sample | None:
    """The metric over seeds; None if all are evaluated too late."""
    unit, found, fates = 100 if metric.endswith("accuracy") else 1, list[float](), list[str]()
    for run in arm.runs:
        history = run.history()
        within = [row for row in history if row["total_bits"] <= budget]
        if len(within) == len(history) and "diverged" in run.summary():
            fates.append("diverged")
        elif not within:
            fates.append("later")
        else:
            found.append(unit * within[-1][metric])
    if len(fates) == len(arm.runs) and set(fates) == {"later"}:
        return None
    return Sample(tuple(found), len(arm.runs), "diverged" if "diverged" in fates else "later")
