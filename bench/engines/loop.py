"""The loop: one worker after another through autograd. Right for every module; the reference for other engines."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from bench.alignment import aligned
from bench.batches import pick
from bench.buffers import WorkerBuffers
from bench.engines.base import (
    Engine,
    RowGradients,
    Step,
    WorkerGradients,
    sum_in_order,
)
from bench.engines.traces import logging_means, logging_replaced, without_traces
from bench.layout import Layout
from bench.noise import Noise


class DenseGradients(WorkerGradients):
    """Gradients as a matrix (R, d)."""

    def __init__(self, losses: Tensor, matrix: Tensor) -> None:
        self.losses = losses
        self.matrix = matrix

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.index_select(self.matrix, 0, rows.to(self.matrix.device), out=out)

    def sum(self, rows: Tensor) -> Tensor:
        return sum_in_order([self.matrix[row] for row in rows.tolist()])

    def finite(self) -> Tensor:
        if self.matrix.sum(dim=1).isfinite().all():  # one read; a sum sees both NaN and infinity
            return torch.ones(len(self.matrix), dtype=torch.bool)
        return self.matrix.isfinite().all(dim=1)

    def squared_distance(self, rows: Tensor, other: RowGradients) -> Tensor:
        theirs, distances = torch.empty_like(self.matrix[:1]), []
        for i, row in enumerate(rows.tolist()):
            (change,) = other.dense(torch.tensor([i]), out=theirs).sub_(self.matrix[row])
            distances.append(change.dot(change))
        return torch.stack(distances)


class DeferredGradients(RowGradients):
    """Computed when they are read, for a lazy rule reads each once, and many would not fit beside those of the round.

    Args:
        like: (d,), of the gradients' dtype and device.
        compute: writes the gradient of a row to a vector (d,).
    """

    def __init__(self, like: Tensor, compute: Callable[[int, Tensor], None]) -> None:
        self.like = like
        self.compute = compute

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        out = self.like.new_empty(len(rows), len(self.like)) if out is None else out
        for row, into in zip(rows.tolist(), out, strict=True):
            self.compute(row, into)
        return out


class LoopEngine(Engine):
    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        super().__init__(module, layout, buffers)
        self.matrix = layout.vector.new_empty(0, 0)  # kept: fresh pages cost as much as the numbers in them

    def gradients(
        self, step: Step, batch: Any, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> DenseGradients:
        vector = self.layout.vector
        if len(self.matrix) != len(noise):
            self.matrix = vector.new_empty(len(noise), len(vector))
        losses = vector.new_empty(len(noise))
        # The user's own random numbers go on undisturbed.
        with logging_means(self.module), torch.random.fork_rng(self._devices()):
            for worker, origin in enumerate(noise):
                at = vector if parameters is None else parameters[worker]
                losses[worker] = self._gradient(worker, at, step, pick(batch, worker), origin, self.matrix[worker])
                self.buffers.store(worker)
        return DenseGradients(losses, self.matrix)

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, batch: Any, noise: Sequence[Noise]
    ) -> DeferredGradients:
        def compute(row: int, out: Tensor) -> None:
            with (
                without_traces(self.module),
                logging_replaced(self.module, _ignore),
                torch.random.fork_rng(self._devices()),
            ):
                self._gradient(rows[row], parameters[row], step, pick(batch, row), noise[row], out)

        return DeferredGradients(self.layout.vector, compute)

    def _gradient(self, worker: int, parameters: Tensor, step: Step, batch: Any, noise: Noise, out: Tensor) -> Tensor:
        """Write one worker's gradient at some parameters (d,) to `out` (d,); its loss."""
        self._seed(noise.entropy("step"))
        self.buffers.load(worker)
        with self.layout.bound_to(parameters):
            loss = step(tree_map_only(Tensor, aligned, batch))
            gradient = torch.autograd.grad(loss, self.layout.parameters, allow_unused=True)
        for view, part in zip(self.layout.views(out), gradient, strict=True):
            view.zero_() if part is None else view.copy_(part)
        return loss.detach()

    def _seed(self, seed: int) -> None:
        """As `torch.manual_seed`, but that also writes out the call stack for each accelerator that is not there."""
        on_cpu = self.layout.vector.device.type == "cpu"
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)

    def _devices(self) -> list[torch.device]:
        """Those besides the CPU whose random numbers a step may draw."""
        device = self.layout.vector.device
        return [device] if device.type == "cuda" else []


def _ignore(*args: Any, **kwargs: Any) -> None: ...
