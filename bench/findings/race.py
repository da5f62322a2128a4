"""Which recipe reaches an experiment's target first on a network: seconds from recorded histories, over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.configured import instantiate
from bench.errors import InputError
from bench.findings.elapsed import elapsed
from bench.findings.experiments import Arm, Experiment
from bench.findings.pay import ALL_REDUCES, FORMATS, Network
from bench.findings.prices import DTYPES, SEEN
from bench.findings.sample import Ratio, Sample
from bench.findings.subject import Subject, make_subject
from bench.findings.work import measure, rounded_s
from bench.runs.columns import FALLING, Row


@dataclass(frozen=True)
class Finish:
    """When an arm reaches the target.

    Attributes:
        name: of the arm, or of the dense format.
        collective: that carries it.
        rounds, seconds: over seeds.
    """

    name: str
    collective: str
    rounds: Sample
    seconds: Sample


@dataclass(frozen=True)
class Race:
    """An experiment's complete runs, and what it takes them to reach its target."""

    experiment: Experiment

    @property
    def num_workers(self) -> int:
        return self._config["workers"]

    @property
    def _config(self) -> dict[str, Any]:
        return self.experiment.complete[0].runs[0].config()

    def subject(self) -> Subject:
        """The experiment's model, with the batches of its runs."""
        config = self._config
        model = instantiate(config["model"])
        return make_subject(model, None, "cross_entropy", config["data"].get("batch_size", 10))

    def skips(self, names: Sequence[str]) -> dict[str, float]:
        """The share of uploads that each of these recipes skipped in this experiment, over all of its runs.

        Raises:
            InputError: it has none of them.
        """
        found: dict[str, float] = {}
        for name in names:
            arms = [arm for arm in self.experiment.complete if arm.algorithm == name]
            rows = [rows[-1] for arm in arms for run in arm.runs if (rows := run.history())]
            told = [row for row in rows if row["skips"] is not None]
            if told:
                found[name] = sum(sum(row["skips"]) for row in told) / sum(
                    row["round"] * len(row["skips"]) for row in told
                )
        if not found:
            raise InputError(f"skips: {self.experiment.name!r}; it tells of none of {', '.join(names)}")
        return found

    def finishes(self, network: Network, subject: Subject) -> tuple[list[Finish], list[Finish], list[str]]:
        """When dense all-reduces and all arms reach the target, and arms whose runs do not tell.

        Raises:
            InputError: there is no dense arm to compare with, or its runs do not tell.
        """
        gradients = torch.stack([subject.gradient(number) for number in range(min(SEEN, network.workers))])
        dense, others, silent = list[Finish](), list[Finish](), list[str]()
        for arm in self.experiment.complete:
            if any(row["answers"] is None for run in arm.runs for row in run.history()[:1]):
                silent.append(arm.label)
                continue
            recipe = arm.runs[0].algorithm
            if recipe.is_dense and recipe.adds_up and arm.runs[0].num_parts == 1:
                dense += [self._dense(arm, name, network, gradients[0]) for name in FORMATS]
                continue
            work = measure(recipe, gradients, subject.layout, network.workers)
            hidden_s = network.hidden_s if recipe.overlaps else 0.0
            timed = [
                Finish(arm.label, name, *_reached(arm, network.link(name), network.step_s, hidden_s, own_s))
                for name, own_s in work.seconds.items()
            ]
            others.append(min(timed, key=_rank))
        if not dense:
            why = f"; recorded without their traffic: {', '.join(silent)}, run them anew" if silent else ""
            raise InputError(f"experiment: {self.experiment.name!r}; a dense arm is needed to compare with{why}")
        return dense, others, silent

    def _dense(self, arm: Arm, name: str, network: Network, gradient: torch.Tensor) -> Finish:
        own_s, share = rounded_s(gradient, DTYPES[name]), FORMATS[name] / FORMATS["fp32"]
        own = "" if arm.label == "sgd" else f"{arm.label} "
        found = {
            each: _reached(arm, network.link(each), network.step_s, network.hidden_s, own_s, share)
            for each in ALL_REDUCES
        }
        return min((Finish(own + name, each, *reached) for each, reached in found.items()), key=_rank)

    def table(self, network: Network, subject: Subject, told: str) -> str:
        """Who pays, as text."""
        dense, others, silent = self.finishes(network, subject)
        best = min(dense, key=_rank)
        aim = self.experiment.complete[0].runs[0].target()
        word = "falls below" if aim["metric"] in FALLING else "exceeds"
        seeds = max(finish.seconds.num_runs for finish in others) if others else 0
        lines = [
            f"{self.experiment.name}: seconds until {aim['metric']} {word} {aim['value']:g}, {seeds} seeds; {told}", "",
            f"{'':<18}{'carried by':<12}{'rounds':>16}{'seconds':>20}{'95 % interval':>22}{'ratio':>8}",
        ]  # fmt: skip
        for finish in [*dense, *sorted(others, key=_rank)]:
            lines.append(_row(finish, best))
        lines += [
            "",
            "fp32, fp16, bf16: all-reduces of dense arms; ratio: the best of them to this one, over the same seeds.",
        ]
        lines += [f"not here: {label}: recorded without what seconds follow from; run it anew" for label in silent]
        return "\n".join([*lines, "", _verdict(best, others, network)])


def race(name: str, results: Path) -> Race:
    """The race of an experiment.

    Raises:
        InputError: there is no such experiment, none of its runs is complete, or they differ in their workers,
            data or models.
    """
    experiment = Experiment.read(name, results)
    if not experiment.complete:
        raise InputError(f"experiment: {name!r}; none of its runs is complete")
    workers = {run.config().get("workers") for arm in experiment.complete for run in arm.runs}
    if len(workers) > 1:
        raise InputError(
            f"experiment: {name!r}; its runs have {' and '.join(map(str, workers))} workers, one is needed"
        )
    tasks = [_task(arm.runs[0].config()) for arm in experiment.complete]
    if any(task != tasks[0] for task in tasks):
        raise InputError(f"experiment: {name!r}; its arms have other data, models or adversaries; the same are needed")
    return Race(experiment)


def _task(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What arms must have in common to be compared."""
    data = {key: value for key, value in config["data"].items() if key not in ("seed", "batch_size")}
    return data, config["model"], config.get("adversary")


def _reached(
    arm: Arm, link: Any, step_s: float, hidden_s: float, own_s: float, share: float = 1.0
) -> tuple[Sample, Sample]:
    """Rounds and seconds until the target. `share`: of the bits of the uploads that cross."""
    rounds, seconds, seeds = list[float](), list[float](), list[str]()
    for run in arm.runs:
        if (end := run.target()["round"]) is None:
            continue
        rows = [_shortened(row, share) for row in run.history() if row["round"] <= end]
        time = elapsed(rows, link, step_s / run.passes, hidden_s, own_s)[-1]
        assert time is not None
        rounds.append(end)
        seconds.append(time)
        seeds.append(run.path.name)
    return Sample(tuple(rounds), len(arm.runs)), Sample(tuple(seconds), len(arm.runs), seeds=tuple(seeds))


def _shortened(row: Row, share: float) -> Row:
    return row | {"longest_upload_bits": share * row["longest_upload_bits"]}


def _rank(finish: Finish) -> tuple[int, float]:
    """Seeds that miss the target count more than seconds."""
    return finish.seconds.missed, finish.seconds.mean if finish.seconds.mean is not None else float("inf")


def _row(finish: Finish, best: Finish) -> str:
    rounds, seconds, who = finish.rounds, finish.seconds, f"{finish.name + ' ':<18}{finish.collective:<12}"
    if seconds.mean is None:
        return f"{who}{'missed':>16}"
    spread = f" ± {seconds.std:.3g}" if seconds.std is not None else ""
    interval = "{:.4g} to {:.4g}".format(*seconds.interval) if seconds.interval else ""
    missed = f" ({seconds.missed} missed)" if seconds.missed else ""
    took = f"{seconds.mean:.4g}{spread}{missed}"
    ratio = Ratio.of(best.seconds, seconds)
    sooner = f"{ratio.value:>8.2f}" if ratio else ""
    if ratio and ratio.num_seeds < ratio.num_runs:
        sooner += f" ({ratio.num_seeds} of {ratio.num_runs} seeds)"
    return f"{who}{rounds.mean:>16,.0f}{took:>20}{interval:>22}{sooner}"


def _verdict(best: Finish, others: Sequence[Finish], network: Network) -> str:
    first = min(others, key=_rank, default=None)
    dense = f"{best.name} all-reduce"
    if best.seconds.mean is None and first is not None and first.seconds.mean is not None:
        return f"{first.name} pays: {dense} never reaches the target."
    if best.seconds.mean is None:
        return "No recipe reaches the target."
    if first is None or first.seconds.mean is None:
        return "No other recipe reaches the target."
    if (ratio := Ratio.of(best.seconds, first.seconds)) is None:
        return f"Undecided: no seed of {first.name}, the quickest, and of {dense} both reaches the target."
    if ratio.value <= 1:
        return f"Nothing pays: {first.name}, the quickest, takes {1 / ratio.value:.2f}× the time of {dense}."
    told = f"{first.name} is there in {first.seconds.mean:.4g} s, {ratio.value:.2f}× sooner than {dense}"
    if first.seconds.missed:
        return f"Undecided: {told}, but {first.seconds.missed} of its {first.seconds.num_runs} seeds miss the target."
    if first.seconds.num_runs == 1:
        return f"Undecided: {told}, but of one seed."
    ours, theirs = first.seconds.interval, best.seconds.interval
    if ours and theirs and ours[1] >= theirs[0]:
        return f"Undecided: {told}, but their 95 % intervals overlap."
    return f"{first.name} pays: it {told.removeprefix(first.name + ' ')}."
