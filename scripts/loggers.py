"""Starts and ends the logger of a run."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from bench.suite.scripts.cli import one_line


@contextmanager
def logging_to(cfg: DictConfig, folder: Any) -> Iterator[Any]:
    """Start the logger of a run, and end it with the run, even if the run fails.

    Raises:
        InputError: the logger's settings are invalid.
    """
    logger = start_logger(cfg, folder)
    try:
        yield logger
    finally:
        if hasattr(logger, "end"):
            logger.end()


def start_logger(cfg: DictConfig, folder: Any) -> Any:
    """The configured logger of a run; False, with a message, if it fails to start, so that the run goes on without it.

    Raises:
        InputError: the logger's settings are invalid.
    """
    from bench.configured import instantiate
    from bench.errors import InputError
    from bench.extras import missing

    if cfg.logger._target_.endswith("BudgetLogger") and (told := missing("wandb")):
        print(f"logger: {told}; the run goes on with history.csv alone", file=sys.stderr)
        return False
    try:
        logger = instantiate(cfg.logger)
        if callable(logger):  # a partial, which still needs the run's folder
            logger: Any = logger(folder.path)
        if logger:
            _ = logger.experiment  # W&B starts here
        return logger
    except InputError:
        raise
    except Exception as error:
        print(f"logger: not started, the run goes on without it: {one_line(error)}", file=sys.stderr)
        return False
