"""The interface of a gradient estimator: an engine that wraps another one.

Workers compress its gradients in place of the gradients of one batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.gradients.batches import Shards
from bench.gradients.engines import Engine
from bench.gradients.engines.base import Step
from bench.kernels.noise import Noise


class Inner(ABC):
    """How the training loop steps the module's optimizer.

    Attributes:
        optimizer: the module's, whose state is that of whichever worker steps.
    """

    optimizer: torch.optim.Optimizer

    @abstractmethod
    def step(self) -> None:
        """Step by `p.grad`, after clipping and the callbacks that see gradients."""

    @abstractmethod
    def between_steps(self) -> None:
        """Step the schedulers that count steps; the loop itself does so after the last step of a round."""


@dataclass(frozen=True)
class Outlook:
    """What an estimator may use at the start of a round.

    Attributes:
        algorithm: the recipe.
        num_workers: M.
        epoch: from 0.
        learning_rate: γ, a number or a vector (d,).
        step: what a worker does with its batch.
        noise: random numbers of the L workers of this process.
        whole_epoch: gives every batch of the training set, dealt to the workers.
        inner: how the module's optimizer is stepped.
        kept: (L, n, d) what the local workers' feedback keeps.
        gather: a process's value -> every process's, in rank order.
        average: vectors (L, d) of this process and the backward passes for each -> the mean (d,) of all M, sent dense.
    """

    algorithm: Algorithm
    num_workers: int
    epoch: int
    learning_rate: float | Tensor
    step: Step
    noise: Sequence[Noise]
    whole_epoch: Callable[[], Iterable[Shards]]
    inner: Inner
    kept: Tensor
    gather: Callable[[Any], list[Any]]
    average: Callable[[Tensor, int], Tensor]


class EstimatingEngine(Engine):
    """An engine that computes an estimator's gradients.

    Args:
        plain: the engine that computes gradients of batches.
    """

    def __init__(self, plain: Engine) -> None:
        super().__init__(plain.module, plain.layout, plain.buffers)
        self.plain = plain

    @abstractmethod
    def prepare(self, outlook: Outlook) -> None:
        """Prepare for a round. All processes must call this."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state kept between rounds, the same in every process."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""


class Estimator(ABC):
    """The settings of a gradient estimator."""

    @property
    def num_parts(self) -> int:
        """The number of parts into which a worker's batch is cut, each with its own backward pass."""
        return 1

    @abstractmethod
    def around(self, plain: Engine) -> EstimatingEngine:
        """Wrap an engine that computes gradients of batches."""

    @abstractmethod
    def refuse(self, algorithm: Algorithm, adversary: Adversary | None, optimizer: torch.optim.Optimizer) -> None:
        """Check that the estimator is compatible with the rest of a run.

        Raises:
            InputError: it is not.
        """
