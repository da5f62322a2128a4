"""Local SGD: workers take several local steps between two rounds, and send the sum of their gradients.

Stich: Local SGD Converges Fast and Communicates Little, ICLR 2019. McMahan, Moore, Ramage, Hampson, Agüera y Arcas:
Communication-Efficient Learning of Deep Networks from Decentralized Data (FedAvg), AISTATS 2017. With a compressor and
error feedback it is Qsparse-local-SGD: Basu, Data, Karakus, Diggavi, NeurIPS 2019.

It wraps another engine, so it works with every recipe: workers compress, and lazy rules compare with the past, the sum
of the gradients along a worker's local path, Σ_h ∇f_m(w_{m,h}; ξ_h), w_{m,h+1} = w_{m,h} − γ' ∇f_m(w_{m,h}; ξ_h).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.adversary import Adversary
from bench.aggregators import Aggregator, MajorityVote
from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.estimators.base import EstimatingEngine, Estimator, Outlook
from bench.gradients.batches import Shards
from bench.gradients.engines import Engine, RowGradients
from bench.gradients.engines.base import Step
from bench.gradients.engines.loop import DenseGradients
from bench.gradients.traces import logging_once, merged
from bench.kernels.noise import Noise


@dataclass(frozen=True)
class LocalSGD(Estimator):
    """The local steps of a round. A worker's batch of a round is cut into equal parts, one per step.

    Args:
        num_steps: H, at least 1. H = 1 is SGD.
        lr: γ' of the local steps, which have no momentum. None takes the γ' with which the server's uncompressed step
            of γ leads to the mean of the workers' final parameters: γ if the server averages, Mγ if it sums.
    """

    num_steps: int = 5
    lr: float | None = None

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"num_steps: {self.num_steps}; at least 1 is needed")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise InputError(f"lr: {self.lr}; a finite number above 0 is needed, or null")

    @property
    def num_parts(self) -> int:
        return self.num_steps

    def around(self, plain: Engine) -> "LocalEngine":
        return LocalEngine(plain, self)

    def refuse(self, algorithm: Algorithm, adversary: Adversary | None, optimizer: torch.optim.Optimizer) -> None:
        momentum = any(group.get("momentum") for group in optimizer.param_groups)
        for given, refused in (
            ("MajorityVote", isinstance(algorithm.aggregator, MajorityVote)),
            (type(optimizer).__name__, not isinstance(optimizer, torch.optim.SGD)),
            ("momentum", momentum),
        ):
            if self.lr is None and refused:
                raise InputError(f"lr: None; with {given} the server's step is no mean of models, a number is needed")

    def learning_rate(self, servers: float | Tensor, aggregator: Aggregator, num_workers: int) -> float | Tensor:
        """Return γ', a number or a vector (d,), given the server's γ."""
        return servers * (num_workers * aggregator.weight(num_workers)) if self.lr is None else self.lr


class LocalGradients(DenseGradients):
    """The sums (R, d) of gradients along the workers' local paths."""

    def __init__(
        self, losses: Tensor, matrix: Tensor, num_steps: int, extras: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        super().__init__(losses, matrix, extras)
        self.num_backwards = num_steps


class LocalEngine(EstimatingEngine):
    """An engine that takes several local steps with the gradients of another engine.

    Args:
        plain: the engine that computes gradients of batches.
        estimator: the number of steps and their learning rate.

    Attributes:
        learning_rate: γ' in this round.
    """

    def __init__(self, plain: Engine, estimator: LocalSGD) -> None:
        super().__init__(plain)
        self.estimator = estimator
        self.num_steps = estimator.num_steps
        self.learning_rate: float | Tensor = 0.0

    def prepare(self, outlook: Outlook) -> None:
        aggregator, num_workers = outlook.algorithm.aggregator, outlook.num_workers
        self.learning_rate = self.estimator.learning_rate(outlook.learning_rate, aggregator, num_workers)

    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> LocalGradients:
        losses: list[Tensor] = []
        extras: list[Sequence[Mapping[str, Any]]] = []

        def take(part: Shards, origins: Sequence[Noise], at: Sequence[Tensor] | None) -> RowGradients:
            gradients = self.plain.gradients(step, part, origins, at)
            losses.append(gradients.losses)
            extras.append(gradients.extras)
            return gradients

        with logging_once(self.module):  # for all steps together
            total = self._walk(take, shards, noise, parameters)
        returned = [merged(of_worker) for of_worker in zip(*extras, strict=True)]
        return LocalGradients(torch.stack(losses).mean(dim=0), total, self.num_steps, returned)

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> LocalGradients:
        def take(part: Shards, origins: Sequence[Noise], at: Sequence[Tensor] | None) -> RowGradients:
            assert at is not None
            return self.plain.gradients_at(at, rows, step, part, origins)

        total = self._walk(take, shards, noise, parameters)
        return LocalGradients(total.new_zeros(len(rows)), total, self.num_steps)

    def _walk(
        self,
        take: Callable[[Shards, Sequence[Noise], Sequence[Tensor] | None], RowGradients],
        shards: Shards,
        noise: Sequence[Noise],
        starts: Sequence[Tensor] | None,
    ) -> Tensor:
        """Take the local steps and return the sums (R, d) of their gradients."""
        vector, num_steps = self.layout.vector, self.num_steps
        total, scratch = vector.new_zeros(len(noise), len(vector)), torch.empty_like(vector)[None]
        at, froms = starts, starts or [vector] * len(noise)
        for h, part in enumerate(shards.parts(num_steps)):
            if h:
                at = [start - self.learning_rate * so_far for start, so_far in zip(froms, total, strict=True)]
            origins = [origin._replace(round=origin.round * num_steps + h) for origin in noise]
            gradients = take(part, origins, at)
            for row, into in enumerate(total):
                into.add_(gradients.dense(torch.tensor([row]), out=scratch)[0])
        return total
