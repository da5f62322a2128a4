"""Composes configs and starts runs as the scripts do, and compares what came of them."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from bench.laws.toys import counted
from bench.runs.columns import MEASURED
from bench.runs.results import RunFolder
from bench.suite.scripts.cli import guarded
from bench.suite.scripts.train import train


def composed(overrides: list[str]) -> DictConfig:
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        return compose("train", overrides)


def started(options: list[str], said: Path, **environment: str) -> BaseProcess:
    """A process that runs `python scripts/train.py`, without the imports that take it seconds: forked from this one.

    Args:
        options: its overrides.
        said: the file to which its output goes.
        environment: variables that it gets.
    """
    return aside(lambda: guarded(lambda: train(composed(options), options)), said, **environment)


def aside(work: Callable[[], None], said: Path, **environment: str) -> BaseProcess:
    """A forked process that does some work. Its output goes to the file `said`."""
    process = multiprocessing.get_context("fork").Process(target=_aside, args=(work, said, environment))
    process.start()
    return process


def _aside(work: Callable[[], None], said: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with said.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    work()


def torchruns(rank: int, size: int, port: int, local_rank: int = 0) -> dict[str, str]:
    """The environment that torchrun gives a worker."""
    return {
        "TORCHELASTIC_RUN_ID": "1",
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(local_rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def assert_same_history(real: Path, simulated: Path) -> None:
    """Assert equal histories of runs in both worlds, except seconds and bytes, which only real processes measure."""
    histories = [RunFolder(folder).history() for folder in (real, simulated)]
    for rows, measured in zip(histories, (True, False), strict=True):
        assert all((row[name] is not None) is measured for row in rows for name in MEASURED)
    ours, theirs = (list(map(counted, rows)) for rows in histories)
    assert ours == theirs
