"""bitbudget: communication-efficient distributed training, with every transmitted bit counted.

Importing this package registers every recipe as a Lightning strategy: `Trainer(strategy="sasg")` simulates ten workers
in one process, `Trainer(strategy="sasg_ddp", devices=4)` runs one process per worker.
"""

from lightning.pytorch.strategies import StrategyRegistry

from bench.algorithm import Algorithm
from bench.estimators.local_sgd import LocalSGD
from bench.estimators.svrg import SVRG
from bench.recipes import load_recipe, recipe_names
from bench.strategies.processes import CompressedDDPStrategy
from bench.strategies.simulated import CompressedStrategy

__all__ = [
    "SVRG",
    "Algorithm",
    "CompressedDDPStrategy",
    "CompressedStrategy",
    "LocalSGD",
    "load_recipe",
    "recipe_names",
]

for _name in recipe_names():
    StrategyRegistry.register(_name, CompressedStrategy, f"{_name}, simulated workers", algorithm=_name)
    StrategyRegistry.register(f"{_name}_ddp", CompressedDDPStrategy, f"{_name}, a process per worker", algorithm=_name)
