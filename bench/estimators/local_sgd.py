"""Local SGD: workers take several steps on their own between two rounds, and send how far they came.

Stich: Local SGD Converges Fast and Communicates Little, ICLR 2019. McMahan, Moore, Ramage, Hampson, Agüera y Arcas:
Communication-Efficient Learning of Deep Networks from Decentralized Data (FedAvg), AISTATS 2017. With a compressor that
keeps its error it is Qsparse-local-SGD: Basu, Data, Karakus, Diggavi, NeurIPS 2019.

As an engine around another one it goes with every recipe: what workers compress, or compare with the past, is the sum
of the gradients along their own way, Σ_h ∇f_m(w_{m,h}; ξ_h), w_{m,h+1} = w_{m,h} − γ' ∇f_m(w_{m,h}; ξ_h).
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
    """How far workers go alone. A worker's batch of a round is cut into equal parts, one a step.

    Args:
        num_steps: H, from 1, which is SGD.
        lr: γ', of these steps, without momentum. If None, that with which the server's step γ, uncompressed, goes to
            the mean of where the workers ended: γ where it takes their mean, Mγ where it takes their sum.
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
                raise InputError(f"lr: None; with {given} the server steps to no mean of models, a number is needed")

    def learning_rate(self, servers: float | Tensor, aggregator: Aggregator, num_workers: int) -> float | Tensor:
        """γ', a number or (d,), of the server's γ."""
        return servers * (num_workers * aggregator.weight(num_workers)) if self.lr is None else self.lr


class LocalGradients(DenseGradients):
    """The sums (R, d) along the workers' ways."""

    def __init__(
        self, losses: Tensor, matrix: Tensor, num_steps: int, extras: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        super().__init__(losses, matrix, extras)
        self.num_backwards = num_steps


class LocalEngine(EstimatingEngine):
    """An engine that takes several steps of another.

    Args:
        plain: the engine that computes gradients of batches.
        estimator: how many steps, and of which length.

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

        with logging_once(self.module):  # of all steps
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
        """(R, d): what the gradients of the workers' steps add up to."""
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
