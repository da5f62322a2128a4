"""The LightningModule of the convex problems, which computes its distance from the optimum."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from bench.errors import InputError
from bench.runs.module import Problem
from bench.suite.models.linear import Loss


class ConvexProblem(Problem):
    """A linear model; f(w) − min f over all samples is logged as `suboptimality`.

    Args:
        network: (B, d) features -> (B,) scores; w is its only parameter.
        optimizer: parameters -> an optimizer.
        schedule: an optimizer -> its learning rate's schedule, stepped every epoch; a constant rate if None.
        loss: of margins.
        ridge: λ₂, above 0. Every batch's objective includes all of λ₂‖w‖².

    Raises:
        InputError: λ₂ is not above 0.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None,
        loss: Loss,
        ridge: float,
    ) -> None:
        super().__init__(network, optimizer, schedule)
        if not 0 < ridge < float("inf"):
            raise InputError(f"ridge: {ridge}; a finite number above 0 is needed")
        self.loss = loss
        self.ridge = ridge

    def on_fit_start(self) -> None:
        """Compute the optimum.

        Raises:
            InputError: the labels are not ±1, or the network has another number of features than the data.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        features, labels = data.train[torch.arange(len(data.train))]
        if not (labels.abs() == 1).all():
            raise InputError(
                "objective: the data have other labels than ±1; data=gspar_logistic or gspar_svm is needed"
            )
        if features.shape[1:] != (given := next(self.parameters()).shape[1:]):
            raise InputError(f"model.num_features: {given.numel()}; the data have {features[0].numel()}")
        signed = (features * labels[:, None]).double().cpu().numpy()
        self.lowest = self.loss.lowest(np.ascontiguousarray(signed), self.ridge)

    def training_step(self, batch: Any) -> Tensor:
        features, labels = batch
        return self._objective(self.network(features), labels, list(self.network.parameters()))

    def validation_step(self, batch: Any) -> None:
        features, labels = (t.double() for t in batch)
        weights = {name: p.double() for name, p in self.network.named_parameters()}
        scores = torch.func.functional_call(self.network, weights, (features,))
        objective = self._objective(scores, labels, list(weights.values()))
        self.log("suboptimality", objective - self.lowest, batch_size=len(labels), logger=False)

    def _objective(self, scores: Tensor, labels: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        squares = torch.stack([p.square().sum() for p in parameters]).sum()
        return self.loss(scores * labels).mean() + self.ridge * squares
