"""The base of the lazy upload rules.

A lazy worker m skips its upload, and the server reuses its last one, as long as

    change_m ≤ (1/M²) Σ_{i=1}^{D−1} c ‖w^{t+1−i} − w^{t−i}‖²    and    age_m ≤ D,    c = coefficient / γ.

In the first D rounds every worker uploads. The rules differ in the left side; LAQ also differs in the right side and
the forced rounds. The learning rate γ of the threshold follows its schedule one epoch late, as in the SASG experiments,
or at once. γ is that of a sum over workers: a mean's γ enters as γ/M.

LAG: Chen, Giannakis, Sun, Yin: LAG: Lazily Aggregated Gradient, NeurIPS 2018.
LASG: Chen, Sun, Yin: Communication-Adaptive Stochastic Gradient Methods, IEEE TSP 2021.
LAQ: Sun, Chen, Giannakis, Yang: Lazily Aggregated Quantized Gradients, NeurIPS 2019.
SASG's settings: Deng, Li, Sun, Lu: Sparse and Adaptive Stochastic Gradient, arXiv 2112.04088.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import InputError
from bench.kernels.sums import wide
from bench.rules.base import UploadRule, View


@dataclass(frozen=True)
class LazyRule(UploadRule):
    """Skips an upload while `change` is at most `threshold`, and the last upload is at most `max_age` rounds old.

    Args:
        coefficient: c times γ. 0.5 gives SASG's c = 1/(2γ) for MNIST; −inf never skips, inf skips whenever allowed.
        max_age: D, the most rounds for which one upload is reused.
        lagging: whether the threshold's γ follows its schedule one epoch late, as in SASG's experiments, or at once.
    """

    coefficient: float = 0.5
    max_age: int = 10
    lagging: bool = True
    adaptive = True

    def __post_init__(self) -> None:
        if not 1 <= self.max_age < 2**31:
            raise InputError(f"max_age: {self.max_age}; 1 to {2**31 - 1} rounds are needed")
        if math.isnan(self.coefficient):
            raise InputError("coefficient: nan; a number is needed, inf for no upload, -inf for all")

    @abstractmethod
    def change(self, view: View, rows: Tensor) -> Tensor:
        """Return the left side of the rule for these rows, (R,)."""

    @property
    def num_movements(self) -> int:
        """The number of recent movements that the threshold sums."""
        return self.max_age - 1

    @property
    def num_forced(self) -> int:
        """The number of initial rounds in which every worker uploads."""
        return self.max_age

    def weight(self, learning_rate: float) -> float:
        """Return c, the factor of a movement's squared L2 norm."""
        return self.coefficient / learning_rate

    def threshold(self, view: View) -> float:
        """Return the right side of the rule, a squared norm of gradients, the same for every worker."""
        rate = view.lagged_rate if self.lagging else view.learning_rate
        assert rate is not None  # otherwise every worker uploads
        c = self.weight(rate)
        # An infinite coefficient gives ±inf, even if the parameters have not moved.
        return sum(view.past.movements) * c / view.num_workers**2 if abs(c) != torch.inf else c

    def should_upload(self, view: View) -> Tensor:
        past = view.past
        past.remember(view.parameters, view.round, self.num_movements)
        ages = view.round - past.upload_rounds
        is_forced = view.round < self.num_forced or view.learning_rate is None
        upload = (ages > self.max_age) | torch.tensor(is_forced)
        if not view.stands:
            upload |= past.sent_nothing  # else its zeros would be reused, as nothing has moved since
        if len(undecided := (~upload).nonzero()[:, 0]):
            change = self.change(view, undecided).cpu()
            upload[undecided] = ~(change <= self.threshold(view))  # a NaN must upload, to be detected
        return upload

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        view.past.finish_round(uploaded, view.round, view.stands)


def squared_norm(rows: Tensor) -> Tensor:
    """(R, d) -> (R,), at least in single precision."""
    return wide(rows).square().sum(dim=1)
