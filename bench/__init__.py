"""bitbudget: communication-efficient distributed training, with every transmitted bit counted.

Importing this package registers every recipe as a Lightning strategy: `Trainer(strategy="sasg")` simulates ten workers
in one process, `Trainer(strategy="sasg_ddp", devices=4)` runs one process per worker. The import itself is quick: torch
and Lightning are imported by the names below when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.registration import register, register_when_imported

if TYPE_CHECKING:
    from bench.algorithm import Algorithm
    from bench.estimators.local_sgd import LocalSGD
    from bench.estimators.svrg import SVRG
    from bench.local_steps import LocalSteps
    from bench.loops.hook import CompressionHook
    from bench.loops.plain import CompressedAllReduce
    from bench.moments import Moments
    from bench.recipes import load_recipe, recipe_names
    from bench.strategies.processes import CompressedDDPStrategy
    from bench.strategies.simulated import CompressedStrategy

    __version__: str

_HOMES = {
    "Algorithm": "bench.algorithm",
    "CompressedAllReduce": "bench.loops.plain",
    "CompressedDDPStrategy": "bench.strategies.processes",
    "CompressedStrategy": "bench.strategies.simulated",
    "CompressionHook": "bench.loops.hook",
    "LocalSGD": "bench.estimators.local_sgd",
    "LocalSteps": "bench.local_steps",
    "Moments": "bench.moments",
    "SVRG": "bench.estimators.svrg",
    "load_recipe": "bench.recipes",
    "recipe_names": "bench.recipes",
}

__all__ = [
    "SVRG",
    "Algorithm",
    "CompressedAllReduce",
    "CompressedDDPStrategy",
    "CompressedStrategy",
    "CompressionHook",
    "LocalSGD",
    "LocalSteps",
    "Moments",
    "__version__",
    "load_recipe",
    "recipe_names",
    "register",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bitbudget")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


register_when_imported()
