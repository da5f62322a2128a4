"""Reads the results store by experiment: the experiment's config file, and its runs grouped by label."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from omegaconf import OmegaConf

from bench.configured import instantiate
from bench.errors import InputError
from bench.findings.view import AS_RECORDED, View, ViewedRun
from bench.runs.differences import differences
from bench.runs.grid import cells
from bench.runs.results import VIEWS, RunFolder
from bench.searchpath import find_config

_SETTING = re.compile(r",(?=\w+=)")  # where a setting begins in a label; values may contain commas


@dataclass(frozen=True)
class Arm:
    """The runs with one label, such as "sgd" or "sgd,adversary=invert,num_byzantine=2", one run per seed."""

    label: str
    runs: Sequence[ViewedRun]

    @property
    def name(self) -> str:
        """The label without the swept settings."""
        return _SETTING.split(self.label)[0]

    @property
    def settings(self) -> dict[str, str]:
        """Values of the swept settings, by name."""
        return dict(part.split("=", 1) for part in _SETTING.split(self.label)[1:])

    @property
    def algorithm(self) -> str:
        """The name of the recipe of these runs."""
        return self.runs[0].config()["algorithm"]["name"]

    @property
    def complete(self) -> Self:
        """This arm with its complete runs only."""
        return type(self)(self.label, [run for run in self.runs if run.is_complete])


@dataclass(frozen=True)
class Experiment:
    """The contents of results/<name>/.

    Attributes:
        name: of the folder, and of the file in configs/experiment that produced it, if any.
        folder: results/<name>.
        spec: the config in that file; empty if there is no file.
        arms: one for each label that has a run, in the order of the file's grid; labels outside it follow, by name.
        view: how its runs are looked at.
        grid: how many runs of each label there are in the file's grid.
    """

    name: str
    folder: Path
    spec: Mapping[str, Any]
    arms: Sequence[Arm]
    view: View = AS_RECORDED
    grid: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, results: Path, view: View = AS_RECORDED) -> Self:
        """Read the experiment of this name.

        Raises:
            InputError: it has no run; two runs of one label differ in more than the seed.
        """
        folder = results / name
        runs = _runs(folder, "*/*")
        if not (there := {run.parent for run in runs}):
            others = ", ".join(experiments_in(results)) or "none"
            raise InputError(f"experiment: {name!r} has no run in {results}; there is {others}")
        spec, order = specified(name)
        rank = {label: place for place, label in enumerate(dict.fromkeys(order))}
        labels = sorted(there, key=lambda p: (rank.get(p.name, len(rank)), p.name))
        seen = partial(ViewedRun, view=view, aim=spec.get("target"), batch_size=spec.get("data", {}).get("batch_size"))
        arms = [Arm(p.name, [seen(run) for run in runs if run.parent == p]) for p in labels]
        for arm in arms:
            _refuse_mixture(arm, view)
        return cls(name, folder, spec, arms, view, Counter(order))

    @property
    def complete(self) -> list[Arm]:
        """The arms that have complete runs, with those runs only."""
        return [arm for arm in (arm.complete for arm in self.arms) if arm.runs]

    @property
    def missing(self) -> dict[str, int]:
        """How many runs of each label of the grid are not complete, where there are any."""
        there = {arm.label: len(arm.runs) for arm in self.complete}
        left = {label: number - there.get(label, 0) for label, number in self.grid.items()}
        return {label: number for label, number in left.items() if number > 0}

    def files(self) -> list[Path]:
        """The files worth keeping: those of complete runs, and the experiment's own (tables, figures)."""
        of_runs = [file for arm in self.complete for run in arm.runs for file in run.files()]
        return of_runs + [file for file in self.folder.iterdir() if file.is_file()]


def _runs(folder: Path, depth: str) -> list[Path]:
    """The folders of runs, in order; a run without its config is one that lacks a file."""
    return sorted({file.parent for name in ("config.yaml", "summary.json") for file in folder.glob(f"{depth}/{name}")})


def values_of(arms: Sequence[Arm], setting: str | None) -> list[str]:
    """The values of a setting, in order of appearance; [""] if no setting is given."""
    return list(dict.fromkeys(arm.settings[setting] for arm in arms)) if setting else [""]


def read_experiments(names: Sequence[str], results: Path, view: View = AS_RECORDED) -> list[Experiment]:
    """Read the experiments of these names; without names, all that have a complete run, naming the others on stderr.

    Raises:
        InputError: an experiment has no complete run, or there are no runs at all.
    """
    if not (there := experiments_in(results)):
        raise InputError(f"results: {results} holds no run; scripts/matrix.py experiment=quickstart makes some")
    found = [Experiment.read(name, results, view) for name in names or there]
    if not names:
        for waiting in (experiment for experiment in found if not experiment.complete):
            print(f"{waiting.name}: no run is complete yet", file=sys.stderr)
        found = [experiment for experiment in found if experiment.complete]
    for experiment in found:
        if not experiment.complete:
            raise InputError(f"experiment: {experiment.name!r}; none of its runs in {experiment.folder} is complete")
    return found


def experiments_in(results: Path) -> list[str]:
    """Names of the experiments that have a run.

    Raises:
        InputError: two folders hold runs of the same name.
    """
    there: list[str] = []
    named: dict[str, Path] = {}
    for folder, runs in groupby(_runs(results, "*/*/*"), key=lambda run: run.parents[1]):
        there.append(folder.name)
        try:
            name = RunFolder(next(runs)).config().get("name", folder.name)
        except InputError:  # reported when this experiment is read; the others stay visible
            continue
        if (other := named.setdefault(name, folder)) != folder:
            raise InputError(f"name: {name!r}; {other} and {folder} both hold runs of it, move one away")
    return there


def specified(name: str) -> tuple[dict[str, Any], list[str]]:
    """The config in an experiment's file, and the labels of its grid in order; both empty if there is no such file."""
    if find_config("experiment", name) is None:
        return {}, []
    shared, grid = cells([f"experiment={name}"])
    spec = OmegaConf.to_container(shared)
    assert isinstance(spec, dict)
    return {str(key): value for key, value in spec.items()}, [cell.folder.path.parent.name for cell in grid]


def _refuse_mixture(arm: Arm, view: View) -> None:
    configs = [run.config() for run in arm.runs]
    for run, config in zip(arm.runs, configs, strict=True):
        for group, key in (("algorithm", "name"), ("target", "metric"), ("link", "_target_")):
            if not run.is_complete or (group != "algorithm" and group not in config):  # which some old ones lack
                continue
            if not (isinstance(part := config.get(group), dict) and key in part):
                file = run.path / "config.yaml"
                raise InputError(f"{file}: damaged, restore it or remove the run: it has no {group} with its {key}")
    first, config = arm.runs[0], configs[0]
    for other, theirs in zip(arm.runs[1:], configs[1:], strict=True):
        differing = differences(config, theirs).keys() - {"seed", "data.seed"}
        links_differ = any(key.startswith("link.") for key in differing)  # perhaps only in what a version wrote
        if view.link is None and links_differ and instantiate(config.get("link")) != instantiate(theirs.get("link")):
            raise InputError(f"{arm.label}: {first.path} and {other.path} have other links, link= gives them the same")
        if differing := {key for key in differing if key.split(".")[0] not in VIEWS}:
            raise InputError(f"{arm.label}: {first.path} and {other.path} differ in {', '.join(sorted(differing))}")
