"""The grid of runs that an experiment's `matrix` describes: all combinations of its axes and arms."""

import itertools
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


@dataclass(frozen=True)
class Pick:
    """A choice along one axis of the grid: its part of the folder's name, and its overrides."""

    label: str
    overrides: list[str]


@dataclass(frozen=True)
class Cell:
    """One run of the grid: the overrides that distinguish it, all its overrides, and its folder."""

    told: str
    overrides: list[str]
    folder: RunFolder


def cells(overrides: list[str]) -> tuple[DictConfig, list[Cell]]:
    """The config that the runs share, and the grid that these overrides describe.

    Raises:
        InputError: the config has no matrix.
    """
    overrides = searched(overrides)
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
        grid, place = [], {"name": shared.name, "results_dir": shared.results_dir}
        given_axes = {str(key): values for key, values in axes.items() if values is not None}  # null leaves an axis out
        for picks in itertools.product(*(_axis(key, values) for key, values in given_axes.items())):
            chosen = [override for pick in picks for override in pick.overrides]
            if any(override.startswith("target.") for override in chosen):
                raise InputError("matrix: target; all runs of a grid need the same, at which they are compared")
            label = ",".join([*named, *(pick.label for pick in picks if pick.label)])
            seed = dict(o.split("=", 1) for o in chosen).get("seed", shared.seed)
            folder = RunFolder.of(DictConfig({**place, "label": label, "seed": seed}))
            grid.append(Cell(" ".join(chosen), [*given, f"label='{label}'", *chosen], folder))
    return shared, grid


def _axis(key: str, values: Any) -> list[Pick]:
    """The choices along one key of a matrix."""
    if key == "arms":
        return [pick for name, changes in values.items() if changes is not None for pick in _arm(name, changes)]
    labels = {"algorithm": "{value}", "seed": ""}  # these name the folder and the run in it; others carry their key
    form = labels.get(key, f"{key.rpartition('.')[2]}={{value}}")
    return [Pick(form.format(value=value), [_override(key, value)]) for value in values]


def _override(key: str, value: Any) -> str:
    return f"{key}={'null' if value is None else value}"


def _arm(name: str, changes: dict[str, Any]) -> list[Pick]:
    """The picks of an arm of the grid: one for each combination of the values that it lists."""
    fixed = [_override(key, value) for key, value in changes.items() if not isinstance(value, list)]
    axes = [_axis(key, values) for key, values in changes.items() if isinstance(values, list)]
    return [
        Pick(
            ",".join([name, *(pick.label for pick in picks)]), [*fixed, *(o for pick in picks for o in pick.overrides)]
        )
        for picks in itertools.product(*axes)
    ]
