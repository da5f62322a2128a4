"""Recipes by name. Each is one file in `configs/algorithm/`, its only definition."""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.resources import files
from typing import Any

from bench.algorithm import Algorithm
from bench.errors import InputError

_FOLDER = files("configs") / "algorithm"
PARTS = ("compressor", "feedback", "rule", "aggregator", "downlink")


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in _FOLDER.iterdir() if f.name.endswith(".yaml"))


def load_recipe(name: str) -> Algorithm:
    """Return the recipe of that name.

    Raises:
        InputError: there is no such recipe; the message lists all.
    """
    from hydra.utils import instantiate  # imported here, so that importing bench stays fast
    from omegaconf import OmegaConf

    if name not in recipe_names():
        raise InputError(f"algorithm: {name!r}; one of {', '.join(recipe_names())} is needed")
    return instantiate(OmegaConf.create((_FOLDER / f"{name}.yaml").read_text()))


def changed(algorithm: Algorithm, options: Mapping[str, Any]) -> tuple[Algorithm, dict[str, Any]]:
    """Change settings of a recipe by keyword.

    A downlink that equals the compressor changes with it.

    Args:
        algorithm: the recipe.
        options: by name, fields of `Algorithm`, such as `aggregator`, or of exactly one of its parts, such as
            `density`.

    Returns:
        The changed recipe, and the options that are not settings of it.

    Raises:
        InputError: two parts have a field of that name, or the changed parts are incompatible.
    """
    whole, rest = {field.name for field in fields(Algorithm)}, {}
    given = {key: value for key, value in options.items() if key in whole}
    if algorithm.downlink == algorithm.compressor and "compressor" in given:
        given.setdefault("downlink", given["compressor"])
    algorithm = replace(algorithm, **given)
    follows = algorithm.downlink == algorithm.compressor
    by_part: dict[str, dict[str, Any]] = {}
    for key, value in options.items():
        if key in whole:
            continue
        owners = [
            part
            for part in PARTS
            if not (part == "downlink" and follows)
            and key in {field.name for field in fields(getattr(algorithm, part) or algorithm)} - whole
        ]
        if len(owners) > 1:
            told = " and ".join(f"{part} {type(getattr(algorithm, part)).__name__}" for part in owners)
            raise InputError(f"{key}: {value!r}; both {told} of {algorithm.name} have it, give the whole part instead")
        if owners:
            by_part.setdefault(owners[0], {})[key] = value
        else:
            rest[key] = value
    parts = {part: replace(getattr(algorithm, part), **settings) for part, settings in by_part.items()}
    if follows and "compressor" in parts:
        parts.setdefault("downlink", parts["compressor"])
    return replace(algorithm, **parts), rest
