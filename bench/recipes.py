"""The recipes by name: one file each under `configs/algorithm/`, which is their only home."""

from importlib.resources import files

from bench.algorithm import Algorithm
from bench.errors import InputError

_FOLDER = files("configs") / "algorithm"


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
