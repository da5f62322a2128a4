"""The recipes of a package: those that it registers, and those that yaml files in it describe."""

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.algorithm import Algorithm
from bench.compressors import Compressor
from bench.errors import InputError
from bench.recipes import load_recipe, registered_names


@dataclass(frozen=True)
class Theirs:
    """The recipes of a package by name, and the package's folder."""

    recipes: dict[str, Algorithm]
    folder: Path

    @property
    def compressors(self) -> dict[str, Compressor]:
        """The compressors of these recipes, both ways, by what they are."""
        return {str(c): c for recipe in self.recipes.values() for c in (recipe.compressor, recipe.broadcast)}

    def golden(self, name: str) -> Path:
        """Where a recipe's golden trace is kept."""
        return self.folder / "golden" / f"{name}.json"


@cache
def theirs(package: str) -> Theirs:
    """Import a package and find its recipes. Yaml files are those in its folders named `algorithm`; a module has none.

    Raises:
        InputError: it cannot be imported, or has no recipes.
    """
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{package}: cannot be imported: {error}") from error
    file = module.__file__ or next(iter(module.__path__))
    folder = Path(file).parent if module.__file__ else Path(file)
    found = {name: load_recipe(name) for name in registered_names(package)}
    for yaml in sorted(folder.rglob("algorithm/*.yaml")) if hasattr(module, "__path__") else ():
        recipe = load_recipe(yaml)
        if found.setdefault(recipe.name, recipe) != recipe:
            raise InputError(f"{yaml}: {package} has registered another recipe named {recipe.name}")
    if not found:
        raise InputError(f"{package}: has no recipe; bench.register or algorithm/<name>.yaml gives it one")
    return Theirs(found, folder)
