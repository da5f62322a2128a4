"""Finds the parts of the package by scanning it, so that new parts are tested without being registered."""

import contextlib
import importlib
import inspect
import itertools
import pkgutil
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import bench
from bench.aggregators import Aggregator, MajorityVote
from bench.algorithm import Algorithm
from bench.compressors import Compressor, Sign
from bench.errors import InputError
from bench.laws.toys import shortened
from bench.recipes import recipe_names
from bench.rules import UploadRule
from bench.wire.integers import Code

for _module in pkgutil.walk_packages(bench.__path__, "bench."):
    if not {".tests", ".suite"} & {f".{part}" for part in _module.name.split(".")}:
        importlib.import_module(_module.name)


def subclasses(base: type) -> list[type]:
    """Return the concrete subclasses, direct and indirect, sorted by name."""
    direct = {sub for cls in base.__subclasses__() for sub in [cls, *subclasses(cls)]}
    return sorted((cls for cls in direct if not inspect.isabstract(cls)), key=lambda cls: cls.__name__)


def variants(part: Any) -> list[Any]:
    """Return a part with every combination of the values of its `Literal` fields."""
    hints = {name: hint for name, hint in get_type_hints(type(part)).items() if get_origin(hint) is Literal}
    return [
        replace(part, **dict(zip(hints, values, strict=True)))
        for values in itertools.product(*map(get_args, hints.values()))
    ]


RECIPES: dict[str, Algorithm] = {name: shortened(name) for name in recipe_names()}
STEPPING = {name: recipe for name, recipe in RECIPES.items() if recipe.local_steps is None}
"""Those whose optimizer steps once a round."""
RULES: list[Any] = [cls() for cls in subclasses(UploadRule)]
AGGREGATORS: list[Any] = [variant for cls in subclasses(Aggregator) for variant in variants(cls())]

RANDOM = replace(RECIPES["signsgd_mv"], compressor=Sign("random"), aggregator=MajorityVote("random"))
"""A recipe whose workers and server both draw random numbers."""

COMPRESSORS: dict[str, Compressor] = {
    str(compressor): compressor
    for recipe in RECIPES.values()
    for used in (recipe.compressor, recipe.broadcast)
    for compressor in variants(used)
}


CODED: dict[str, Compressor] = {
    f"{code} {kind.__name__}": replace(compressor, code=code)  # pyright: ignore[reportCallIssue, reportArgumentType]
    for kind, compressor in {type(c): c for c in COMPRESSORS.values()}.items()
    for code in (get_args(Code) if hasattr(compressor, "code") else ())
}
"""A compressor of every kind whose messages have several codes, under each."""


def combinations() -> dict[str, Algorithm]:
    """Return every recipe, and every recipe with each compatible rule and aggregator."""
    found = dict(RECIPES)
    for (name, recipe), rule, aggregator in itertools.product(RECIPES.items(), RULES, AGGREGATORS):
        if (rule, aggregator) != (recipe.rule, recipe.aggregator):
            with contextlib.suppress(InputError):
                combined = replace(recipe, rule=rule, aggregator=aggregator)
                found[f"{name}-{type(rule).__name__}-{aggregator}"] = combined
    return found


COMBINATIONS = combinations()


def covering() -> dict[str, Algorithm]:
    """Return few combinations that include every compatible pair of recipe and rule, of recipe and aggregator, and of
    rule and aggregator, and every recipe unchanged."""

    def pairs(algorithm: Algorithm) -> set[Any]:
        recipe, rule, aggregator = algorithm.name, algorithm.rule, algorithm.aggregator
        return {(recipe, rule), (recipe, aggregator), (rule, aggregator)}

    found = dict(RECIPES)
    left = set().union(*map(pairs, COMBINATIONS.values())).difference(*map(pairs, found.values()))
    while left:
        name = max(COMBINATIONS, key=lambda name: len(pairs(COMBINATIONS[name]) & left))
        found[name] = COMBINATIONS[name]
        left -= pairs(COMBINATIONS[name])
    return found


COVERING = covering()
