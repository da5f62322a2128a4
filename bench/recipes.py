"""Recipes by name. Each that the package brings is one file in `configs/algorithm/`; others are registered."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.kinds import refuse_kind
from bench.knobs import declared
from bench.names import FOLDER, house_names
from bench.searchpath import find_config

PARTS = ("compressor", "feedback", "rule", "aggregator", "downlink", "local_steps", "moments")


@dataclass(frozen=True)
class _Registered:
    recipe: Algorithm
    module: str


_REGISTERED: dict[str, _Registered] = {}


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted({*house_names(), *_REGISTERED})


def registered_names(package: str) -> list[str]:
    """Return the names of the recipes that a package, or a module in it, has registered, sorted."""
    return sorted(name for name, by in _REGISTERED.items() if f"{by.module}.".startswith(f"{package}."))


def load_recipe(name: str | Path) -> Algorithm:
    """Return the recipe of that name, or the one that a yaml file describes.

    Raises:
        InputError: there is no such recipe, and the message lists all; or no such file.
    """
    if isinstance(name, Path) or name.endswith(".yaml"):
        return _read(Path(name))
    if name in _REGISTERED:
        return _REGISTERED[name].recipe
    if name not in house_names():
        if (file := find_config("algorithm", name)) is not None:
            return _read(file)
        raise InputError(f"algorithm: {name!r}; one of {', '.join(recipe_names())} is needed")
    return _read(FOLDER / f"{name}.yaml")


def _read(file: Any) -> Algorithm:
    from hydra.errors import InstantiationException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = OmegaConf.create(file.read_text("utf-8"))
        if not isinstance(config, DictConfig):
            raise ValueError(f"a {type(config).__name__}")
        recipe = make_recipe(config)
        settings: Any = OmegaConf.to_container(config, resolve=True)
        declared(settings, str(file))
    except FileNotFoundError:
        raise InputError(f"algorithm: {file}; there is no such file") from None
    except InputError:
        raise
    except (ValueError, AttributeError, OSError, YAMLError, OmegaConfBaseException, InstantiationException) as error:
        raise InputError(f"{file}: no recipe: {' '.join(str(error).split())}; settings of one are needed") from error
    if not isinstance(recipe, Algorithm):
        raise InputError(f"{file}: a {type(recipe).__name__}; _target_: bench.Algorithm is needed")
    return recipe


def make_recipe(config: Any) -> Algorithm:
    """The recipe that a config describes, as a recipe's yaml does. The knobs that it declares are no part of it.

    Raises:
        InputError: parts that are incompatible.
    """
    from omegaconf import OmegaConf

    from bench.configured import instantiate  # imported here, so that importing bench stays fast

    settings: Any = OmegaConf.to_container(config, resolve=True)
    if isinstance(settings, dict):
        settings.pop("knobs", None)
    return instantiate(settings)


def add(recipe: Algorithm, module: str) -> None:
    """Make a recipe known by its name.

    Args:
        recipe: its name must be free; to add an equal one again is allowed.
        module: the name of the one that adds it.

    Raises:
        InputError: another recipe has the name; a part is no frozen dataclass, or cannot be pickled.
    """
    for part in (recipe, *(getattr(recipe, name) for name in (*PARTS, "downlink_feedback"))):
        if part is not None and not (is_dataclass(part) and type(part).__dataclass_params__.frozen):  # pyright: ignore[reportAttributeAccessIssue]
            kind = f"{type(part).__module__}.{type(part).__qualname__}"
            raise InputError(f"{recipe.name}: {kind} can change, but workers share it; frozen=True is needed")
    try:
        same = pickle.loads(pickle.dumps(recipe)) == recipe
    except Exception as error:
        raise InputError(f"{recipe.name}: cannot be pickled, which processes need: {error}") from error
    if not same:
        raise InputError(f"{recipe.name}: is another one after pickling; fields that compare equal are needed")
    if (taken := _REGISTERED.get(recipe.name)) and taken.recipe != recipe:
        raise InputError(f"{recipe.name}: {taken.module} has registered another recipe of this name")
    if recipe.name in house_names():
        raise InputError(f"{recipe.name}: a recipe of bitbudget has this name; choose another")
    _REGISTERED.setdefault(recipe.name, _Registered(recipe, module))


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
            refuse_kind(key, value, get_type_hints(type(getattr(algorithm, owners[0])))[key])
            by_part.setdefault(owners[0], {})[key] = value
        else:
            rest[key] = value
    parts = {part: replace(getattr(algorithm, part), **settings) for part, settings in by_part.items()}
    if follows and "compressor" in parts:
        parts.setdefault("downlink", parts["compressor"])
    return replace(algorithm, **parts), rest
