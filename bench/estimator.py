"""What workers take for their gradient, if it is not that of a batch: an engine around another one."""

from abc import ABC, abstractmethod

import torch

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.engines import Engine


class Estimator(ABC):
    @property
    def num_parts(self) -> int:
        """How many parts a worker's batch is cut into, with backward passes of their own."""
        return 1

    @abstractmethod
    def around(self, plain: Engine) -> Engine:
        """An engine of such gradients, out of one of batches' gradients."""

    @abstractmethod
    def refuse(self, algorithm: Algorithm, adversary: Adversary | None, optimizer: torch.optim.Optimizer) -> None:
        """Make sure that it goes with the rest of a run.

        Raises:
            InputError: it does not.
        """
