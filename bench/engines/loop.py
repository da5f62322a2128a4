"""The loop: one worker after another through autograd. Right for every module; the reference for other engines."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from bench.alignment import aligned
from bench.batches import pick
from bench.buffers import WorkerBuffers
from bench.engines.base import Engine, Step, WorkerGradients, logging_replaced, sum_in_order
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
        return self.matrix.isfinite().all(dim=1)

    def squared_distance(self, rows: Tensor, other: WorkerGradients) -> Tensor:
        assert isinstance(other, DenseGradients)
        pairs = zip(rows.tolist(), other.matrix, strict=True)
        return torch.stack([torch.dist(self.matrix[row], theirs).square() for row, theirs in pairs])


class LoopEngine(Engine):
    """
    Args:
        module: whose step is run.
        layout: its parameters.
        buffers: its buffers, a row a worker.
    """

    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        self.module = module
        self.layout = layout
        self.buffers = buffers

    def gradients(
        self,
        step: Step,
        batch: Any,
        noise: Sequence[Noise],
        parameters: Sequence[Tensor] | None = None,
        rows: Sequence[int] | None = None,
    ) -> DenseGradients:
        vector = self.layout.vector
        matrix = vector.new_empty(len(noise), vector.numel())
        losses = vector.new_empty(len(noise))
        devices = [vector.device] if vector.device.type == "cuda" else []
        # A pass at other parameters is the algorithm's own: it must not log, nor move running statistics.
        silent = contextlib.nullcontext() if parameters is None else logging_replaced(self.module, _ignore)
        with silent, torch.random.fork_rng(devices):  # the user's own random numbers go on undisturbed
            for i, origin in enumerate(noise):
                worker = i if rows is None else rows[i]
                torch.manual_seed(origin.entropy("step"))
                self.buffers.load(worker)
                if parameters is not None:
                    self.layout.bind(parameters[i])
                try:
                    loss = step(tree_map_only(Tensor, aligned, pick(batch, i)))
                    gradient = torch.autograd.grad(loss, self.layout.parameters, allow_unused=True)
                finally:
                    self.layout.bind(vector)
                if parameters is None:
                    self.buffers.store(worker)
                losses[i] = loss.detach()
                for out, part in zip(self.layout.views(matrix[i]), gradient, strict=True):
                    out.zero_() if part is None else out.copy_(part)
        return DenseGradients(losses, matrix)


def _ignore(*args: Any, **kwargs: Any) -> None: ...
