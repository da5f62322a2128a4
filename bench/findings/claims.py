"""The page of claims: what papers claim, our figures, and the verdict that a rule computes from committed runs."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError
from bench.findings.claim import LEAST, Claim, Finding, means
from bench.findings.experiments import Arm, Experiment, experiments_in, specified
from bench.findings.table import Column, Table

SEEDS = (1, 19, 31)
"""With which experiments of fewer seeds go on."""

HEAD = """# What the papers claim, and whether it holds here

Of {total} claims {holds} hold, {fails} do not hold, and {undecided} are undecided. `python scripts/claims.py` decides
them by the rules in [claims.yaml](claims.yaml) and the runs beside it.

A rule names a measure of one arm, or of two that are compared seed by seed, and the bounds between which it has to lie.
A claim *holds* if the whole 95 % interval lies between them (Student's t over seeds; of a ratio, by its logarithm), and
*does not hold* if all of it lies outside. Else it is *undecided*, as it is with fewer than three seeds, or where a seed
missed the target or diverged.

Bounds are ours, as papers give no tolerances; and a verdict is one on runs of this size: it refutes no theorem. Of
arms that differ in what a rule leaves open, such as the learning rate, it takes the best by its measure. Accuracies are
in per cent, their differences in points. Costs to a target are read at evaluations, so an interval may have no width.
Nothing corrects for the number of verdicts.
"""


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Paper:
    """A paper and its claims."""

    source: str
    claims: list[Claim]


@dataclass(frozen=True)
class Page:
    """What a results folder says on the claims of papers, by the papers' names."""

    results: Path
    papers: Mapping[str, Paper]

    def findings(self) -> Iterator[tuple[str, list[Finding]]]:
        """Papers, and what is found on their claims.

        Raises:
            InputError: an experiment or arm that neither a file nor a run has; a measure that its runs lack.
        """
        read = cache(self._experiment)
        for name, paper in self.papers.items():
            found = []
            for number, claim in enumerate(paper.claims, start=1):
                try:
                    _refuse_labels(claim, experiment := read(claim.experiment))
                    found.append(claim.finding(experiment))
                except InputError as error:
                    raise InputError(f"{name}, claim {number}: {error}") from error
            yield name, found

    def _experiment(self, name: str) -> Experiment:
        """An experiment, without arms if it has not been run."""
        if any((self.results / name).glob("*/*/config.yaml")):
            return Experiment.read(name, self.results)
        spec, labels = specified(name)
        if not spec:
            raise InputError(f"experiment: {name!r}; {self.results} has {', '.join(experiments_in(self.results))}")
        return Experiment(name, self.results / name, spec, [], grid=Counter(labels))

    def markdown(self) -> str:
        """The page."""
        parts, counts = [], dict.fromkeys(("holds", "does not hold", "undecided"), 0)
        for name, found in self.findings():
            for finding in found:
                counts[finding.verdict] += 1
            parts.append(f"\n## {name}\n\n{self._table(self.papers[name].source, found).markdown()}")
        head = HEAD.format(
            total=sum(counts.values()), holds=counts["holds"], fails=counts["does not hold"],
            undecided=counts["undecided"],
        )  # fmt: skip
        return head + "".join(parts)

    def _table(self, source: str, found: Sequence[Finding]) -> Table:
        rows = [
            {
                "number": str(number),
                "claim": finding.claim.claim,
                "where": finding.claim.where,
                "runs": linked(finding.experiment),
                "rule": rule(finding),
                "ours": figure(finding),
                "seeds": seeds(finding),
                "verdict": f"**{finding.verdict}**",
            }
            for number, finding in enumerate(found, start=1)
        ]
        titles = {"number": "", "claim": "claim", "where": "there", "runs": "our runs", "rule": "holds if",
                  "ours": "ours (95 %)", "seeds": "seeds", "verdict": "verdict"}  # fmt: skip
        more = ["", "Runs that are still needed:", "", *lines] if (lines := wanted(found)) else []
        return Table("\n".join([source, *more]), [Column(k, t, "name") for k, t in titles.items()], rows)


def _refuse_labels(claim: Claim, experiment: Experiment) -> None:
    known = dict.fromkeys([*experiment.grid, *(arm.label for arm in experiment.arms)])
    for label in (claim.arm, claim.other):
        if isinstance(label, str) and not any(means(label, each) for each in known):
            raise InputError(f"arm: {label!r}; {experiment.name} has {', '.join(known)}")


def read_claims(file: Path) -> dict[str, Paper]:
    """Papers by name.

    Raises:
        InputError: there is no such file, it is no yaml, or says what no rule is.
    """
    if not file.exists():
        raise InputError(f"{file}: missing; papers with their claims are needed, such as results/claims.yaml has")
    try:
        return TypeAdapter(dict[str, Paper]).validate_python(yaml.safe_load(file.read_text("utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: damaged: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ", ".join(f"claim {part + 1}" if isinstance(part, int) else str(part) for part in first["loc"])
        given = f"{first['input']!r}; " if first["type"] != "value_error" else ""
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{file}: {place}: {given}{said}") from error


def linked(experiment: Experiment) -> str:
    """The experiment's name, which leads to its table, if it has one."""
    has_table = (experiment.folder / "table.md").exists()
    return f"[{experiment.name}]({experiment.name}/table.md)" if has_table else experiment.name


def rule(finding: Finding) -> str:
    """When a claim holds, in a line. Settings that both arms have stand at its end."""
    claim, labels = finding.claim, iter(finding.labels)
    given = [side for side in (claim.arm, claim.other) if side is not None]
    arms = [Arm(next(labels, side), []) if isinstance(side, str) else side for side in given]
    settings = [arm.settings.items() for arm in arms if isinstance(arm, Arm)]
    shared = [pair for pair in settings[0] if len(settings) == 2 and pair in settings[1]]
    sides = [_told(arm, shared) if isinstance(arm, Arm) else f"{arm:,.10g}" for arm in arms]
    told = (" − " if claim.over is None else " ÷ ").join(sides)
    aim = "" if claim.at == "end" else " at the target" if claim.target is None else f" at {claim.target:g}"
    low = f"{shown(claim.above)} < " if claim.above > -math.inf else ""
    high = f" < {shown(claim.below)}" if claim.below < math.inf else ""
    where = f"; {_settings(shared)}" if shared else ""
    return f"{low}`{claim.of}`{aim} of {told}{high}{where}"


def _told(arm: Arm, shared: Sequence[tuple[str, str]]) -> str:
    """An arm without these settings."""
    own = [pair for pair in arm.settings.items() if pair not in shared]
    return f"{arm.name} ({_settings(own)})" if own else arm.name


def _settings(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in pairs)


def figure(finding: Finding) -> str:
    """Our figure, with its interval."""
    if finding.value is None:
        return "–"
    low, high = finding.interval or (None, None)
    return shown(finding.value) + (f" ({shown(low)} to {shown(high)})" if low is not None and high is not None else "")


def seeds(finding: Finding) -> str:
    """How many seeds there are, and what became of those without a number."""
    sample = finding.sample
    if not sample.num_runs:
        return "not run"
    return f"{sample.num_runs}" + f", {sample.missed} {sample.fate}" * bool(sample.missed)


def shown(number: float) -> str:
    """A number of three digits, or a whole one."""
    return (f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}").replace("-", "−")


def wanted(found: Sequence[Finding]) -> list[str]:
    """The commands that make the runs without which claims cannot be decided."""
    short: dict[str, list[str]] = {}
    for number, finding in enumerate(found, start=1):
        if finding.sample.num_runs < LEAST:
            short.setdefault(command(finding.experiment), []).append(str(number))
    return [f"- {', '.join(numbers)}: `{told}`" for told, numbers in short.items()]


def command(experiment: Experiment) -> str:
    """What makes the runs of enough seeds."""
    given = (experiment.spec.get("matrix") or {}).get("seed") or []
    needed = [*given, *(seed for seed in SEEDS if seed not in given)][: max(LEAST, len(given))]
    more = f" 'matrix.seed=[{','.join(map(str, needed))}]'" if needed != given else ""
    return f"python scripts/matrix.py experiment={experiment.name}{more}"
