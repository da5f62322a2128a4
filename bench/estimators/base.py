"""What workers take for their gradient, if it is not that of a batch: an engine around another one."""

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


@dataclass(frozen=True)
class Outlook:
    """What an estimator may know of the round that begins.

    Attributes:
        algorithm: the recipe.
        num_workers: M.
        epoch: from 0.
        learning_rate: γ, one or a vector (d,).
        step: what a worker does with its batch.
        noise: of the L workers of this process.
        whole_epoch: every batch of the training set, dealt.
        average: vectors (L, d) of this process and the passes they took -> the mean (d,) of all M, sent dense.
    """

    algorithm: Algorithm
    num_workers: int
    epoch: int
    learning_rate: float | Tensor
    step: Step
    noise: Sequence[Noise]
    whole_epoch: Callable[[], Iterable[Shards]]
    average: Callable[[Tensor, int], Tensor]


class EstimatingEngine(Engine):
    """An engine of an estimator's gradients.

    Args:
        plain: the engine that computes gradients of batches.
    """

    def __init__(self, plain: Engine) -> None:
        super().__init__(plain.module, plain.layout, plain.buffers)
        self.plain = plain

    @abstractmethod
    def prepare(self, outlook: Outlook) -> None:
        """Make ready for a round. All processes take part."""

    def state_dict(self) -> dict[str, Any]:
        """What goes on from round to round, the same in every process."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""


class Estimator(ABC):
    @property
    def num_parts(self) -> int:
        """How many parts a worker's batch is cut into, with backward passes of their own."""
        return 1

    @abstractmethod
    def around(self, plain: Engine) -> EstimatingEngine:
        """An engine of such gradients, out of one of batches' gradients."""

    @abstractmethod
    def refuse(self, algorithm: Algorithm, adversary: Adversary | None, optimizer: torch.optim.Optimizer) -> None:
        """Make sure that it goes with the rest of a run.

        Raises:
            InputError: it does not.
        """
