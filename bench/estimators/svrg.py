"""SVRG: reduces the variance of gradients with an anchor w̃ whose full gradient is known.

    g_m = ∇f_m(w; ξ) − ∇f_m(w̃; ξ) + ∇f(w̃)

Johnson, Zhang: Accelerating Stochastic Gradient Descent using Predictive Variance Reduction, NeurIPS 2013. It wraps
another engine, so it works with every recipe: workers compress g_m, and lazy rules compare it with the past.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.estimators.base import EstimatingEngine, Estimator, Outlook
from bench.gradients.batches import Shards
from bench.gradients.engines import Engine, RowGradients, WorkerGradients
from bench.gradients.engines.base import Step
from bench.gradients.randomness import lent_once
from bench.kernels.noise import Noise
from bench.kernels.sums import sum_in_order


@dataclass(frozen=True)
class SVRG(Estimator):
    """Settings of SVRG.

    Args:
        interval: epochs from one anchor to the next.
    """

    interval: int = 1

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise InputError(f"interval: {self.interval}; at least 1 epoch is needed")

    def around(self, plain: Engine) -> "SVRGEngine":
        return SVRGEngine(plain, self.interval)

    def refuse(self, algorithm: Algorithm, adversary: Adversary | None, optimizer: torch.optim.Optimizer) -> None:
        if adversary is not None:
            raise InputError(f"adversary: {adversary}; SVRG's full gradients cannot be corrupted, null is needed")


@dataclass(frozen=True)
class Anchor:
    """`parameters`: (d,) w̃. `gradient`: (d,) ∇f(w̃), the mean over all workers. `epoch`: the epoch of the anchor."""

    parameters: Tensor
    gradient: Tensor
    epoch: int


class CorrectedRows(RowGradients):
    """Gradients plus a correction (R, d): ∇f(w̃) − ∇f_m(w̃; ξ)."""

    def __init__(self, plain: RowGradients, correction: Tensor) -> None:
        self.plain = plain
        self.correction = correction

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        return self.plain.dense(rows, out).add_(self.correction[rows.to(self.correction.device)])


class CorrectedGradients(CorrectedRows, WorkerGradients):
    num_backwards = 2

    def __init__(self, plain: WorkerGradients, correction: Tensor) -> None:
        super().__init__(plain, correction)
        self.worker_gradients = plain
        self.losses = plain.losses
        self.extras = plain.extras

    def sum(self, rows: Tensor) -> Tensor:
        return sum_in_order([self.dense(row)[0] for row in rows.split(1)])

    def finite(self) -> Tensor:
        return self.worker_gradients.finite() & self.correction.isfinite().all(dim=1).cpu()

    def squared_distance(self, rows: Tensor, other: RowGradients) -> Tensor:
        assert isinstance(other, CorrectedRows)  # both have the same correction, which cancels
        return self.worker_gradients.squared_distance(rows, other.plain)


class SVRGEngine(EstimatingEngine):
    """An engine that corrects the gradients of another engine with those at the anchor.

    Args:
        plain: the engine that computes gradients of batches.
        interval: epochs from one anchor to the next.
    """

    def __init__(self, plain: Engine, interval: int) -> None:
        super().__init__(plain)
        self.interval = interval
        self.anchor: Anchor | None = None

    def prepare(self, outlook: Outlook) -> None:
        """Move the anchor to the current parameters if it is due. All workers are charged for its full gradient."""
        if self.anchor is not None and outlook.epoch < self.anchor.epoch + self.interval:
            return
        with lent_once():
            rows, num_batches = self.full_gradients(outlook.step, outlook.whole_epoch(), outlook.noise)
        self.anchor = Anchor(self.layout.vector.clone(), outlook.average(rows, num_batches), outlook.epoch)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.anchor is None else {"anchor": vars(self.anchor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (anchor := state.get("anchor")) is not None:
            vectors = {name: anchor[name].to(self.layout.vector.device) for name in ("parameters", "gradient")}
            self.anchor = Anchor(**vectors, epoch=anchor["epoch"])

    def full_gradients(self, step: Step, batches: Iterable[Shards], noise: Sequence[Noise]) -> tuple[Tensor, int]:
        """Return every local worker's mean gradient over dealt batches, (L, d), and the number of batches.

        Has no side effects on the module.
        """
        num_rows, num_batches = len(noise), 0
        parameters, every_row = [self.layout.vector] * num_rows, range(num_rows)
        total = self.layout.vector.new_zeros(num_rows, self.layout.num_parameters)
        for shards in batches:
            total += self.plain.gradients_at(parameters, every_row, step, shards, noise).dense(torch.arange(num_rows))
            num_batches += 1
        if not num_batches:
            raise InputError("batch: each has fewer samples than workers; SVRG needs a longer one for its anchor")
        return total / num_batches, num_batches

    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> CorrectedGradients:
        assert self.anchor is not None
        plain = self.plain.gradients(step, shards, noise, parameters)
        rows = torch.arange(len(noise))
        at_anchor = self.plain.gradients_at([self.anchor.parameters] * len(rows), rows.tolist(), step, shards, noise)
        self.correction = self.anchor.gradient - at_anchor.dense(rows)
        return CorrectedGradients(plain, self.correction)

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> CorrectedRows:
        plain = self.plain.gradients_at(parameters, rows, step, shards, noise)
        return CorrectedRows(plain, self.correction[list(rows)])
