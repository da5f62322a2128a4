"""What the package holds, found by looking: a new part is under test the day it is written."""

import importlib
import inspect
import pkgutil
from dataclasses import replace
from typing import Any

import bench
from bench.aggregators import Aggregator, Sum
from bench.algorithm import Algorithm
from bench.compressors import Compressor
from bench.recipes import load_recipe, recipe_names
from bench.rules import UploadRule

for _module in pkgutil.walk_packages(bench.__path__, "bench."):
    if ".tests" not in _module.name:
        importlib.import_module(_module.name)


def subclasses(base: type) -> list[type]:
    """The concrete subclasses, by name."""
    direct = {sub for cls in base.__subclasses__() for sub in [cls, *subclasses(cls)]}
    return sorted((cls for cls in direct if not inspect.isabstract(cls)), key=lambda cls: cls.__name__)


RECIPES: dict[str, Algorithm] = {name: load_recipe(name) for name in recipe_names()}
RULES: list[Any] = [cls() for cls in subclasses(UploadRule)]
AGGREGATORS: list[Any] = [cls() for cls in subclasses(Aggregator)]

COMPRESSORS: dict[str, Compressor] = {
    str(compressor): compressor for recipe in RECIPES.values() for compressor in (recipe.compressor, recipe.downlink)
}

COMBINATIONS: dict[str, Algorithm] = {
    **RECIPES,
    **{
        f"{name}-{type(rule).__name__}-{type(aggregator).__name__}": replace(recipe, rule=rule, aggregator=aggregator)
        for name, recipe in RECIPES.items()
        for rule in RULES
        for aggregator in AGGREGATORS
        if (type(rule), type(aggregator)) != (type(recipe.rule), Sum)
    },
}
"""Every recipe, and every recipe under every rule and aggregator."""
