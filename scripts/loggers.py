"""The logger of a run: started with it, and ended with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from scripts.cli import one_line


@contextmanager
def logging_to(cfg: DictConfig, folder: Any) -> Iterator[Any]:
    """The logger of a run, which ends with the run however that does.

    Raises:
        InputError: the logger cannot be meant.
    """
    logger = start_logger(cfg, folder)
    try:
        yield logger
    finally:
        if hasattr(logger, "end"):
            logger.end()


def start_logger(cfg: DictConfig, folder: Any) -> Any:
    """The configured logger of a run; it goes on without one that does not start.

    Raises:
        InputError: the logger cannot be meant.
    """
    from hydra.utils import instantiate

    from bench.errors import InputError

    try:
        logger = instantiate(cfg.logger)
        if callable(logger):  # partial: it wants to know where
            logger: Any = logger(folder.path)
        if logger:
            _ = logger.experiment  # W&B starts here
        return logger
    except InputError:
        raise
    except Exception as error:
        print(f"logger: not started, the run goes on without it: {one_line(error)}", file=sys.stderr)
        return False
