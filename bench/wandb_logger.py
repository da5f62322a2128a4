"""Weights & Biases, with a chart for every cost: accuracy and loss against rounds, uploads, bits and seconds."""

import os
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

METRICS = ("test_accuracy", "train_loss", "suboptimality")
AXES = {"round": "rounds", "uploads": "uploads", "uplink_bits": "uplink_bits", "modelled_s": "communication_s"}
"""Column of the history -> the axis it makes. A W&B metric has one x axis, so each metric is logged once an axis."""


class BudgetLogger(WandbLogger):
    """Lightning's logger, offline unless told otherwise. Arguments as of `WandbLogger`."""

    def __init__(self, **kwargs: Any) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # its greeting would tear the progress bars
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous", None)  # Lightning passes it on; W&B warns that it means nothing now
        self._axes_defined = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._axes_defined:
            for axis in AXES.values():
                self.experiment.define_metric(axis)
                self.experiment.define_metric(f"by_{axis}/*", step_metric=axis)
            self._axes_defined = True
        axes = {axis: metrics[column] for column, axis in AXES.items() if column in metrics}
        charts = {f"by_{axis}/{name}": metrics[name] for axis in axes for name in METRICS if name in metrics}
        super().log_metrics({**metrics, **axes, **charts}, step)
