"""When every arm reaches one value of the target's metric, on several networks."""

import math
from collections.abc import Sequence
from decimal import Decimal

from bench.errors import InputError
from bench.findings.asked import refuse_falling
from bench.findings.captions import absent, num_seeds
from bench.findings.experiments import Arm, Experiment
from bench.findings.look import TITLES, amount, engineering
from bench.findings.pay import COLLECTIVES
from bench.findings.sample import Sample
from bench.findings.table import Column, Entry, Table
from bench.findings.view import View
from bench.link import LinkModel
from bench.runs.columns import FALLING
from bench.runs.targets import target_reached


def seconds_table(
    experiment: Experiment,
    bandwidth_bps: Sequence[float],
    latency_s: float,
    step_ms: float,
    overlap: float = 0.0,
    target: float | None = None,
) -> Table:
    """Seconds until the target's metric is better than one value: one row per arm, one column per bandwidth.

    Args:
        experiment: with at least one complete run.
        bandwidth_bps: bits per second of each machine, in each direction.
        latency_s: seconds a message.
        step_ms: a worker's computation of one batch of the experiment's file.
        overlap: the share of it during which messages can travel, if the recipe's can before the gradient is whole.
        target: a value of the metric; None for the best that every run comes to, to three digits.

    Raises:
        InputError: no bandwidth, or numbers that a network or a view cannot have; no target, as every arm diverged.
    """
    refuse_falling("tables.bandwidth_bps", bandwidth_bps)
    arms, view = experiment.complete, View(step_ms=step_ms, overlap=overlap)
    metric = arms[0].runs[0].target()["metric"]
    aim = common(arms, metric) if target is None else target
    rows: list[dict[str, Entry]] = []
    for arm in arms:
        cells = {
            f"bandwidth={bandwidth:g}": _quickest(
                [_seconds(arm, view, kind(bandwidth, latency_s), metric, aim) for kind in COLLECTIVES.values()]
            )
            for bandwidth in bandwidth_bps
        }
        rows.append({"recipe": arm.label, **cells})
    columns = [
        Column(f"bandwidth={bandwidth:g}", f"s at {engineering(bandwidth)}bit/s", "seconds")
        for bandwidth in bandwidth_bps
    ]
    better = "below" if metric in FALLING else "above"
    why = ", which all runs come to" if target is None else ""
    caption = (
        f"{experiment.name}: seconds until the {TITLES[metric]} is {better} {amount(metric, aim)}{why}, if a step takes"
        f" a worker {step_ms:g} ms and a message {latency_s * 1e6:g} µs besides its bits; mean ± standard deviation"
        f" over n = {num_seeds(arms)} seeds. Each arm by the quickest of {', '.join(COLLECTIVES)} that carries its"
        " messages; work on messages is not in them."
    )
    if silent := [str(row["recipe"]) for row in rows if None in row.values()]:
        caption += f" Empty: {', '.join(silent)}, which no link carries or no run tells enough of."
    title = f"Seconds to a {TITLES[metric]} {better} {amount(metric, aim)}"
    return Table(caption + absent(experiment), [Column("recipe", "recipe", "name"), *columns], rows, title=title)


def common(arms: Sequence[Arm], metric: str) -> float:
    """The best value, to three digits, than which every run becomes better at some evaluation, but for arms of which
    one diverged.

    Raises:
        InputError: every arm diverged.
    """
    sign = -1 if metric in FALLING else 1
    ended = [arm for arm in arms if not any("diverged" in run.summary() for run in arm.runs)]
    if not ended:
        raise InputError("tables.target: none; every arm diverged, one is needed")
    worst = min(max(sign * row[metric] for row in run.history()) for arm in ended for run in arm.runs)
    exact = Decimal(repr(worst))
    digit = Decimal(10) ** (exact.adjusted() - 2)
    return sign * float((math.ceil(exact / digit) - 1) * digit)


def _seconds(arm: Arm, view: View, link: LinkModel, metric: str, aim: float) -> Sample | None:
    """Over seeds, where a link carries the arm's messages; None where it does not, or where runs do not tell."""
    found, seeds = list[float](), list[str]()
    for run in arm.runs:
        rows = run.history()
        times = view.seconds(rows, run.algorithm, link, run.passes)
        if None in times:
            return None
        if (end := target_reached(rows, metric, aim)["round"]) is not None:
            found += [time for row, time in zip(rows, times, strict=True) if row["round"] == end and time is not None]
            seeds.append(run.path.name)
    return Sample(tuple(found), len(arm.runs), seeds=tuple(seeds))


def _quickest(found: Sequence[Sample | None]) -> Sample | None:
    told = [sample for sample in found if sample is not None]
    return min(told, key=lambda sample: math.inf if sample.mean is None else sample.mean, default=None)
