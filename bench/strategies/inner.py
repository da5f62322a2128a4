"""How Lightning steps an optimizer and its schedulers, for the local steps within a round."""

import lightning
import torch
from lightning.pytorch.plugins.precision import Precision

from bench.estimators.base import Inner


class LightningInner(Inner):
    """The optimizer of `configure_optimizers`, with the hooks and the clipping that Lightning runs before a step.

    Args:
        module: whose optimizer it is, during a fit.
        precision: the Trainer's.
    """

    def __init__(self, module: lightning.LightningModule, precision: Precision) -> None:
        self.module = module
        self.precision = precision
        self.optimizer: torch.optim.Optimizer = module.trainer.optimizers[0]
        self._schedulers = [
            config.scheduler
            for config in module.trainer.lr_scheduler_configs
            if config.interval == "step" and not config.reduce_on_plateau
        ]

    def step(self) -> None:
        self.precision._after_closure(self.module, self.optimizer)
        self.optimizer.step()

    def between_steps(self) -> None:
        for scheduler in self._schedulers:
            self.module.lr_scheduler_step(scheduler, None)
