"""Objects that configs name: Hydra's functions, for which `models.…` and `datamodules.…` are the suite's own.

So config.yaml files say what they always said, wherever the suite is installed, and a project may have packages named
`models` and `datamodules` itself: a path that the suite does not have is looked up there. Parts that have moved since a
config was written are found where they are now.
"""

import logging
from importlib.util import find_spec
from typing import Any

import hydra.utils
from omegaconf import OmegaConf

OURS = ("models", "datamodules")

RENAMED = {
    "bench.asynchronous.SharedMemory": "bench.runs.asynchronous.SharedMemory",
    "bench.convex.ConvexProblem": "bench.runs.convex.ConvexProblem",
    "bench.local_sgd.LocalSGD": "bench.estimators.LocalSGD",
    "bench.schedules.InverseTime": "bench.runs.schedules.InverseTime",
    "bench.svrg.SVRG": "bench.estimators.SVRG",
    "bench.wandb_logger.BudgetLogger": "bench.runs.wandb_logger.BudgetLogger",
}
"""The current paths of parts, by their paths in configs that were written before the parts moved."""


def get_object(path: str) -> Any:
    """What a dotted path names.

    Raises:
        ImportError, ValueError: as Hydra's function of this name.
    """
    logger = logging.getLogger(hydra.utils.__name__)  # it would tell of an error that we tell ourselves
    was, logger.disabled = logger.disabled, True
    try:
        return hydra.utils.get_object(_suites(path))
    finally:
        logger.disabled = was


def instantiate(config: Any, **options: Any) -> Any:
    """What a config describes; None of None.

    Args:
        config: with a `_target_`.
        options: as of Hydra's function of this name.
    """
    if config is None:
        return None
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    return hydra.utils.instantiate(_translated(plain), **options)


def _translated(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _suites(value) if key == "_target_" and isinstance(value, str) else _translated(value)
            for key, value in node.items()
        }
    return [_translated(value) for value in node] if isinstance(node, list) else node


def _suites(path: str) -> str:
    """Where what had this path is now: in the suite, if it has that module."""
    path = RENAMED.get(path, path)
    package, _, rest = path.partition(".")
    module = rest.split(".")[0]
    return f"bench.suite.{path}" if package in OURS and find_spec(f"bench.suite.{package}.{module}") else path
