"""A run of threads on shared memory. They have no rounds, so neither Lightning nor checkpoints are used."""

import itertools
import math
import os
from typing import Any

import numpy as np
from omegaconf import DictConfig

from bench.configured import instantiate
from bench.errors import InputError, NonFiniteError
from bench.recipes import make_recipe
from bench.runs.pace import paced
from bench.runs.targets import refuse_target
from bench.suite.datamodules.synthetic import SVMData
from bench.suite.models.linear import Hinge
from bench.suite.scripts.loggers import logging_to


def train_asynchronously(cfg: DictConfig, folder: Any, config: dict[str, Any], command: str) -> None:
    """Run them, and write the config, history and summary."""
    data, objective = instantiate(cfg.data), instantiate(cfg.get("objective"))
    if not isinstance(data, SVMData) or objective is None or not isinstance(objective.keywords["loss"], Hinge):
        raise InputError("world: threads; data=gspar_svm and objective=hinge are needed, or another world")
    for group in ("adversary", "estimator", "schedule"):
        if cfg.get(group) is not None:
            raise InputError(f"{group}: {cfg[group]._target_}; not available with world=threads, null is needed")
    if set(cfg.optimizer) - {"_target_", "_partial_", "lr"} or not cfg.optimizer._target_.endswith(".SGD"):
        raise InputError(f"optimizer: {cfg.optimizer._target_}; world=threads takes plain sgd only")
    refuse_target(cfg.target.metric, {"train_loss": 0})
    features, labels = data.draw()
    signed = np.ascontiguousarray(features * labels[:, None], np.float32)
    algorithm, ridge = make_recipe(cfg.algorithm), objective.keywords["ridge"]
    with logging_to(cfg, folder) as logger:
        rows, facts = instantiate(cfg.asynchronous).train(algorithm, signed, ridge, cfg.optimizer.lr, cfg.seed)
        finite = list(itertools.takewhile(lambda row: math.isfinite(row["train_loss"]), rows))
        if len(finite) < len(rows):
            facts["diverged"] = f"update {rows[len(finite)]['round']}: the loss is not finite"
        folder.write_config(config)
        folder.write_summary(finite, cfg.target, command, downlink="", num_cores=os.cpu_count(), **facts)
        if logger:
            logger.log_hyperparams(config)
            for row in paced(finite, cfg.optimizer.lr):
                logger.log_metrics(row, step=row["round"])
            logger.finalize("success")
    if "diverged" in facts:
        raise NonFiniteError(facts["diverged"])
    print(f"{folder.path}: complete, train_loss {rows[-1]['train_loss']:.4g}")
