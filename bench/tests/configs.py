"""Composes configs as the scripts do, and compares what came of them."""

from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from bench.laws.toys import counted
from bench.runs.columns import MEASURED
from bench.runs.results import RunFolder


def composed(overrides: list[str]) -> DictConfig:
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        return compose("train", overrides)


def assert_same_history(real: Path, simulated: Path) -> None:
    """Assert equal histories of runs in both worlds, except seconds and bytes, which only real processes measure."""
    histories = [RunFolder(folder).history() for folder in (real, simulated)]
    for rows, measured in zip(histories, (True, False), strict=True):
        assert all((row[name] is not None) is measured for row in rows for name in MEASURED)
    ours, theirs = (list(map(counted, rows)) for rows in histories)
    assert ours == theirs
