"""Composes configs as the scripts do."""

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def composed(overrides: list[str]) -> DictConfig:
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        return compose("train", overrides)
