"""Overrides of configs, from the form that users write to the one that Hydra takes."""

from collections.abc import Sequence
from importlib.resources import files

import yaml

from bench.errors import InputError


def composable(overrides: Sequence[str]) -> list[str]:
    """The overrides, with `group=null`, which Hydra rejects, replaced by its `~group`.

    Raises:
        InputError: a run cannot do without the group.
    """
    config = yaml.safe_load((files("bench.suite.configs") / "train.yaml").read_text("utf-8"))
    groups = {
        group: default for choice in config["defaults"] if choice != "_self_" for group, default in choice.items()
    }
    return [_composable(override, groups) for override in overrides]


def _composable(override: str, groups: dict[str, str | None]) -> str:
    group, _, value = override.partition("=")
    if group not in groups or "null" not in value.split(","):
        return override
    if groups[group] is not None:
        raise InputError(f"{group}: null; a run needs one, such as {groups[group]}")
    if value != "null":
        raise InputError(f"{group}: {value}; Hydra sweeps over names only, the grids of scripts/matrix.py take null")
    return f"~{group}"
