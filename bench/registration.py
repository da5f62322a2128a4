"""Recipes as Lightning strategies, registered as soon as Lightning is there, for which `import bench` need not wait."""

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bench.names import house_names

if TYPE_CHECKING:
    from bench.algorithm import Algorithm

_STRATEGIES = "lightning.pytorch.strategies"


def register_when_imported() -> None:
    """Register all recipes with Lightning: now, if it is imported already, else when it is."""
    if _STRATEGIES in sys.modules:
        register_all()
    else:
        sys.meta_path.insert(0, _Watch())


def register_all() -> None:
    """Register the recipes that the package brings."""
    for name in house_names():
        register_strategies(name)


def register(recipe: "Algorithm") -> "Algorithm":
    """Make a recipe of your own known by its name: as `Trainer(strategy=name)`, with and without `_ddp`.

    Args:
        recipe: its name must be free; to register an equal one again is allowed.

    Returns:
        The recipe.

    Raises:
        InputError: another recipe has the name; a part is no frozen dataclass, or cannot be pickled.
    """
    from bench.recipes import add

    add(recipe, sys._getframe(1).f_globals.get("__name__", "?"))
    register_strategies(recipe.name)
    return recipe


def register_strategies(name: str) -> None:
    """Register a recipe's two strategies, `name` and `name_ddp`, if Lightning is imported: else it happens then."""
    if (lightnings := sys.modules.get(_STRATEGIES)) is None or not hasattr(lightnings, "StrategyRegistry"):
        return
    registry = lightnings.StrategyRegistry
    for suffix, make, where in (("", _simulated, "simulated workers"), ("_ddp", _processes, "a process per worker")):
        if f"{name}{suffix}" not in registry:
            registry.register(f"{name}{suffix}", make, f"{name}, {where}", algorithm=name)


def _simulated(**options: Any) -> Any:
    from bench.strategies.simulated import CompressedStrategy

    return CompressedStrategy(**options)


def _processes(**options: Any) -> Any:
    from bench.strategies.processes import CompressedDDPStrategy

    return CompressedDDPStrategy(**options)


class _Watch(MetaPathFinder):
    """Notices the import of Lightning's strategies, which registers ours once it is through."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _STRATEGIES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        register_all()
