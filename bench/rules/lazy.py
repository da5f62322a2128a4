"""The frame of the lazy rules.

A lazy worker m skips its upload, and the server uses its last one again, as long as

    change_m ≤ (1/M²) Σ_{i=1}^{D−1} c ‖w^{t+1−i} − w^{t−i}‖²    and    age_m ≤ D,    c = coefficient / γ.

The first D rounds always upload. The left side is what the rules differ in; LAQ has another frame, too. The learning
rate γ of the threshold follows a schedule one epoch late, as in the SASG experiments, or at once; it is that of a sum:
a mean's γ counts a Mth.

LAG: Chen, Giannakis, Sun, Yin: LAG: Lazily Aggregated Gradient, NeurIPS 2018.
LASG: Chen, Sun, Yin: Communication-Adaptive Stochastic Gradient Methods, IEEE TSP 2021.
LAQ: Sun, Chen, Giannakis, Yang: Lazily Aggregated Quantized Gradients, NeurIPS 2019.
SASG's settings: Deng, Li, Sun, Lu: Sparse and Adaptive Stochastic Gradient, arXiv 2112.04088.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import InputError
from bench.rules.base import UploadRule, View


@dataclass(frozen=True)
class LazyRule(UploadRule):
    """The frame of the lazy rules.

    Args:
        coefficient: c times γ. 0.5 makes SASG's c = 1/(2γ) for MNIST; −inf never skips, inf skips all it may.
        max_age: D, the most rounds that one upload is used again.
        lagging: the threshold's γ follows its schedule an epoch late, as in SASG's experiments, or at once.
    """

    coefficient: float = 0.5
    max_age: int = 10
    lagging: bool = True
    adaptive = True

    def __post_init__(self) -> None:
        if self.max_age < 1:
            raise InputError(f"max_age: {self.max_age}; at least 1 round is needed")

    @abstractmethod
    def change(self, view: View, rows: Tensor) -> Tensor:
        """(R,): the left side of the rule for these rows."""

    @property
    def num_movements(self) -> int:
        """How many of the last movements the threshold adds up."""
        return self.max_age - 1

    @property
    def num_forced(self) -> int:
        """How many rounds at the beginning everybody uploads in."""
        return self.max_age

    def weight(self, learning_rate: float) -> float:
        """c, of a movement's squared length."""
        return self.coefficient / learning_rate

    def threshold(self, view: View) -> float:
        """The right side of the rule, a squared length of gradients, the same for every worker."""
        rate = view.lagged_rate if self.lagging else view.learning_rate
        assert rate is not None  # or everybody uploads
        c = self.weight(rate)
        # An infinite coefficient means the limit, even while nothing has moved.
        return sum(view.past.movements) * c / view.num_workers**2 if abs(c) != torch.inf else c

    def should_upload(self, view: View) -> Tensor:
        past = view.past
        past.remember(view.parameters, view.round, self.num_movements)
        ages = view.round - past.upload_rounds
        is_forced = view.round < self.num_forced or view.learning_rate is None
        upload = (ages > self.max_age) | torch.tensor(is_forced)
        if not view.stands:
            upload |= past.sent_nothing  # which would be used again, as nothing has moved since
        if len(undecided := (~upload).nonzero()[:, 0]):
            change = self.change(view, undecided).cpu()
            upload[undecided] = ~(change <= self.threshold(view))  # so that a NaN uploads, and is found
        return upload

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        view.past.finish_round(uploaded, view.round, view.stands)


def squared_norm(rows: Tensor) -> Tensor:
    """(R, d) -> (R,)."""
    return rows.square().sum(dim=1)
