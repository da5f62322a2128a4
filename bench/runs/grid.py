"""The grid of runs that an experiment's `matrix` describes: all combinations of its axes and arms."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from bench.errors import InputError
from bench.runs.overrides import composable
from bench.runs.results import RunFolder
from bench.searchpath import searched

FOR_THE_GRID = ("matrix.", "jobs=", "launcher=", "hydra.launcher.")
"""How overrides begin that are of the grid, and not of its runs."""

PRESENTED = ("figure", "table", "tables", "paper", "logs", "hours")
"""What tables and figures take from the experiment's file alone."""

PLACES = ("name", "results_dir", "label")
"""What no run of a grid may set."""


@dataclass(frozen=True)
class Pick:
    """A choice along one axis of the grid: its part of the folder's name, and its overrides."""

    label: str
    overrides: list[str]


@dataclass(frozen=True)
class Cell:
    """One run of the grid: what it is called, its arm or recipe, its overrides, and its folder."""

    told: str
    arm: str
    overrides: list[str]
    folder: RunFolder


def cells(overrides: list[str]) -> tuple[DictConfig, list[Cell]]:
    """The config that the runs share, and the grid that these overrides describe.

    Raises:
        InputError: an override of what only the experiment's file can say; the config has no matrix, or one that does
            not describe a grid of different runs.
    """
    overrides = searched(overrides)
    for key in (override.lstrip("+~").partition("=")[0] for override in overrides):
        if key.partition(".")[0] in PRESENTED:
            raise InputError(f"{key}: tables and figures take it from the experiment's file, write it there")
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        shared = compose("train", composable([o for o in overrides if not o.startswith("hydra.launcher.")]))
        if not shared.matrix:
            raise InputError("experiment: none with a matrix given; scripts/train.py makes a single run")
        axes = OmegaConf.to_container(shared.matrix)
        assert isinstance(axes, dict)
        for key, values in axes.items():
            if values is not None and (isinstance(values, str | int | float) or not values):
                raise InputError(f"matrix.{key}: {values!r}; a list with one value at least is needed, or null")
        given = [o for o in overrides if not o.lstrip("+").startswith(FOR_THE_GRID)]
        named = [] if {"algorithm", "arms"} & axes.keys() else [shared.algorithm.name]
        place = {key: shared[key] for key in ("name", "results_dir")}
        grid, by_all = [], None
        given_axes = {str(key): values for key, values in axes.items() if values is not None}  # null leaves an axis out
        for picks in itertools.product(*(_axis(key, values) for key, values in given_axes.items())):
            chosen = [override for pick in picks for override in pick.overrides]
            _refuse(keys := [override.partition("=")[0].lstrip("+") for override in chosen])
            by_all = {"label", *keys} if by_all is None else by_all & {"label", *keys}
            label = ",".join([*named, *(pick.label for pick in picks if pick.label)])
            seed = chosen[keys.index("seed")].partition("=")[2] if "seed" in keys else shared.seed
            folder = RunFolder.of(OmegaConf.create({**place, "label": label, "seed": seed}))
            told, settings = f"{label} seed={seed}", [*given, f"label={_quoted(label)}", *chosen]
            grid.append(Cell(told, label.partition(",")[0], settings, folder))
    if not grid:
        raise InputError("matrix: no run is left; one arm at least is needed")
    for key in (override.lstrip("+").partition("=")[0] for override in given):
        if key in (by_all or ()):
            raise InputError(f"{key}: the matrix sets it for each run, change it there, as matrix.seed=[1,19] does")
    for told, number in Counter(cell.told for cell in grid).items():
        if number > 1:
            raise InputError(f"matrix: {number} runs are called {told}; each needs a name of its own")
    return shared, grid


def _refuse(keys: Sequence[str]) -> None:
    """Check the keys that a run of the grid sets, some of them perhaps more than once."""
    for key in keys:
        if key in PLACES:
            raise InputError(f"matrix: {key}; the grid says where its runs lie, leave it out")
        if key.startswith("target."):
            raise InputError("matrix: target; all runs of a grid need the same, at which they are compared")
        if keys.count(key) > 1:
            raise InputError(f"matrix: {key} is given by an arm and besides; one of them is needed")


def _quoted(text: str) -> str:
    """A text as a value of Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _axis(key: str, values: Any) -> list[Pick]:
    """The choices along one key of a matrix."""
    if key == "arms":
        if not isinstance(values, dict):
            raise InputError(f"matrix.arms: {values!r}; a name and settings for each arm are needed")
        return [pick for name, changes in values.items() if changes is not None for pick in _arm(name, changes)]
    labels = {"algorithm": "{value}", "seed": ""}  # these name the folder and the run in it; others carry their key
    form = labels.get(key, f"{key.rpartition('.')[2]}={{value}}")
    return [Pick(form.format(value=value), [_override(key, value)]) for value in values]


def _override(key: str, value: Any) -> str:
    return f"{key}={'null' if value is None else value}"


def _arm(name: Any, changes: Any) -> list[Pick]:
    """The picks of an arm of the grid: one for each combination of the values that it lists."""
    if not isinstance(name, str) or not isinstance(changes, dict):
        raise InputError(f"matrix.arms.{name}: {changes!r}; a text as its name and settings by their keys are needed")
    for key, value in changes.items():
        if isinstance(value, dict):
            raise InputError(f"matrix.arms.{name}.{key}: {value!r}; keys with dots, as in optimizer.lr, are needed")
        if isinstance(value, list) and not value:
            raise InputError(f"matrix.arms.{name}.{key}: []; a list with one value at least is needed")
    fixed = [_override(key, value) for key, value in changes.items() if not isinstance(value, list)]
    axes = [_axis(key, values) for key, values in changes.items() if isinstance(values, list)]
    return [
        Pick(
            ",".join([name, *(pick.label for pick in picks)]), [*fixed, *(o for pick in picks for o in pick.overrides)]
        )
        for picks in itertools.product(*axes)
    ]
