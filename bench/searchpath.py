"""Where configs outside of bitbudget lie: what the environment variable `BITBUDGET_SEARCHPATH` names.

It holds places as of `hydra.searchpath`, such as `pkg://threshold.configs` or `file:///home/me/configs`, separated by
commas. Every command looks there too: for recipes, experiments, and any other group.
"""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.errors import InputError

VARIABLE = "BITBUDGET_SEARCHPATH"


def searched(overrides: Sequence[str]) -> list[str]:
    """The overrides, after one that names these places, unless it is among them; Hydra's own flags stay first."""
    places = os.environ.get(VARIABLE, "")
    if not places or any(override.startswith("hydra.searchpath=") for override in overrides):
        return list(overrides)
    own = (i for i, each in enumerate(overrides) if "=" in each and not each.startswith("-"))
    first = next(own, len(overrides))
    return [*overrides[:first], f"hydra.searchpath=[{places}]", *overrides[first:]]


def find_config(group: str, name: str) -> Any | None:
    """The file of a config, in bitbudget or in these places; None if there is none.

    Raises:
        InputError: a place cannot be read.
    """
    for folder in (files("bench.suite.configs"), *map(_folder, filter(None, os.environ.get(VARIABLE, "").split(",")))):
        if (file := folder / group / f"{name}.yaml").is_file():
            return file
    return None


def _folder(place: str) -> Any:
    kind, _, rest = place.strip().rpartition("://")
    if kind in ("", "file"):
        return Path(rest)
    try:
        if kind == "pkg":
            return files(rest)
    except ImportError as error:
        raise InputError(f"{VARIABLE}: {place}; it cannot be imported: {error}") from error
    raise InputError(f"{VARIABLE}: {place}; pkg://package.of.configs or file:///folder is needed")
