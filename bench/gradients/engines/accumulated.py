"""Gradients of several batches per round, summed before workers compress anything."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bench.gradients.batches import Shards
from bench.gradients.engines.base import Engine, RowGradients, Step, WorkerGradients
from bench.gradients.engines.loop import DenseGradients
from bench.kernels.noise import Noise


class Batch(NamedTuple):
    """One batch of a round: the workers' step, their shards, and the source of their random numbers."""

    step: Step
    shards: Shards
    noise: Sequence[Noise]


class SummedRows(RowGradients):
    """The sum of gradients of several batches, times a factor."""

    def __init__(self, parts: Sequence[RowGradients], factor: float) -> None:
        self.parts = parts
        self.factor = factor
        self.num_backwards = sum(part.num_backwards for part in parts)

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        first, *others = self.parts
        total = first.dense(rows, out)
        for part in others:
            total.add_(part.dense(rows))
        return total if self.factor == 1 else total.mul_(self.factor)


class AccumulatedGradients(DenseGradients):
    """The sum at the module's own parameters."""

    def __init__(self, losses: Tensor, matrix: Tensor, num_backwards: int) -> None:
        super().__init__(losses, matrix)
        self.num_backwards = num_backwards


class Accumulation:
    """The batches of a round so far, and the workers' gradients summed over them.

    Args:
        engine: computes the gradients.

    Attributes:
        batches: in order of arrival.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.batches: list[Batch] = []
        self._total: WorkerGradients | None = None

    def hold(self) -> None:
        """Keep the sum through the engine's next pass, which invalidates the engine's earlier gradients."""
        if self._total is not None and not isinstance(self._total, AccumulatedGradients):
            self._total = _written_out(self._total)

    def add(self, batch: Batch, gradients: WorkerGradients) -> None:
        """Add one batch."""
        self.batches.append(batch)
        if self._total is None:
            self._total = gradients
            return
        assert isinstance(self._total, AccumulatedGradients)
        self._total.matrix.add_(gradients.dense(torch.arange(len(gradients.losses))))
        self._total.losses = self._total.losses + gradients.losses
        self._total.num_backwards += gradients.num_backwards

    def gradients(self, factor: float = 1.0) -> WorkerGradients:
        """The sums over all batches, times a factor."""
        assert self._total is not None
        if factor == 1:
            return self._total
        self.hold()
        assert isinstance(self._total, AccumulatedGradients)
        self._total.matrix.mul_(factor)
        self._total.losses = self._total.losses * factor
        return self._total

    def gradients_at(self, rows: Tensor, parameters: Sequence[Tensor], factor: float = 1.0) -> RowGradients:
        """The sums for some workers at other parameters, one vector (d,) per row."""
        picked = rows.tolist()
        parts = [
            self.engine.gradients_at(parameters, picked, step, shards.pick(rows), [noise[row] for row in picked])
            for step, shards, noise in self.batches
        ]
        return parts[0] if len(parts) == 1 and factor == 1 else SummedRows(parts, factor)


def _written_out(gradients: WorkerGradients) -> AccumulatedGradients:
    rows = torch.arange(len(gradients.losses))
    return AccumulatedGradients(gradients.losses, gradients.dense(rows).clone(), gradients.num_backwards)
