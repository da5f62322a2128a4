"""The contents of a run's config.yaml."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

NOT_RESULTS = (
    "results_dir",
    "data_dir",
    "label",
    "logger",
    "wandb_mode",
    "autosave_minutes",
    "matrix",
    "tune",
    "jobs",
    "launcher",
    "paper",
    "logs",
    "hours",
    "figure",
    "table",
    "tables",
)
"""Keys that do not change a result: where it is stored, how it is logged, the grid around it, how it is presented."""


def described(cfg: DictConfig) -> dict[str, Any]:
    """The contents of config.yaml: everything that a result depends on."""
    plain = resolved(cfg)
    plain["data"].pop("data_dir", None)
    if (strategy := plain.get("strategy")) and strategy.get("collective") != "allreduce":
        strategy.pop("collective", None)  # with all others the result is the same
    return {key: value for key, value in plain.items() if key not in NOT_RESULTS}


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, but for its recipe's knobs, on which no run depends."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    plain["algorithm"].pop("knobs", None)
    return {str(key): value for key, value in plain.items()}
