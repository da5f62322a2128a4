"""The recipes by name: one file each under `configs/algorithm/`, which is their only home."""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.resources import files
from typing import Any

from bench.algorithm import Algorithm
from bench.errors import InputError

_FOLDER = files("configs") / "algorithm"
PARTS = ("compressor", "feedback", "rule", "aggregator", "downlink")


def recipe_names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in _FOLDER.iterdir() if f.name.endswith(".yaml"))


def load_recipe(name: str) -> Algorithm:
    """The recipe of that name.

    Raises:
        InputError: no such recipe; the message lists those there are.
    """
    from hydra.utils import instantiate  # here, so that importing bench stays light
    from omegaconf import OmegaConf

    if name not in recipe_names():
        raise InputError(f"algorithm: {name!r}; one of {', '.join(recipe_names())} is needed")
    return instantiate(OmegaConf.create((_FOLDER / f"{name}.yaml").read_text()))


def changed(algorithm: Algorithm, options: Mapping[str, Any]) -> tuple[Algorithm, dict[str, Any]]:
    """A recipe with some of its settings changed by keyword, and the options that are none of its settings.

    Args:
        algorithm: the recipe.
        options: each a field of `Algorithm`, such as `aggregator`, else of exactly one of its parts, such as `density`.
            A downlink that equals the compressor follows it.

    Raises:
        InputError: two parts have such a field; or what is given does not go together.
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
