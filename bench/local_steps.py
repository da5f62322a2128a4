"""Local steps with the user's own optimizer, and the outer step that follows them.

Douillard et al.: DiLoCo: Distributed Low-Communication Training of Language Models, 2023, Algorithm 1. McMahan et al.:
FedAvg, 2017. Reddi et al.: Adaptive Federated Optimization (FedOpt), 2021.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from bench.errors import InputError


@dataclass(frozen=True)
class LocalSteps:
    """H steps of the module's optimizer at every worker, then one step of SGD by what the server answers.

    The module's optimizer is the inner one: each worker has a state of it, and clips before each step. A worker that
    has come from w to w_m gives Δ_m = w − w_m to the recipe in place of a gradient, and the outer optimizer steps by
    the aggregate: w ← w − outer_lr · mean_m Δ_m is the mean of models at outer_lr = 1.

    Args:
        num_steps: H, at least 1. A worker's batch of a round is cut into as many equal parts.
        outer_lr: of the outer SGD.
        outer_momentum: of the outer SGD, which is Nesterov's, in [0, 1).
        apart: workers never meet: each goes on from its own w_m, of which only what it has sent is replaced by what all
            have sent. w_m = w − e_m, e_m being the error of its feedback. Their mean is evaluated and saved.

    Raises:
        InputError: a value out of its range.
    """

    num_steps: int
    outer_lr: float = 1.0
    outer_momentum: float = 0.0
    apart: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise InputError(f"num_steps: {self.num_steps!r}; an integer, at least 1, is needed")
        if not 0 < self.outer_lr < float("inf"):
            raise InputError(f"outer_lr: {self.outer_lr}; a finite number above 0 is needed")
        if not 0 <= self.outer_momentum < 1:
            raise InputError(f"outer_momentum: {self.outer_momentum}; a number in [0, 1) is needed")

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.SGD:
        """The outer optimizer."""
        return torch.optim.SGD(
            parameters, lr=self.outer_lr, momentum=self.outer_momentum, nesterov=self.outer_momentum > 0
        )
