"""The loop: one worker after another through autograd. Right for every module; the reference for other engines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from bench.batches import pick
from bench.engines.base import Engine, Noise, Step, WorkerGradients, aligned
from bench.layout import Layout


class DenseGradients(WorkerGradients):
    """Gradients as a matrix (R, d)."""

    def __init__(self, losses: Tensor, matrix: Tensor) -> None:
        self.losses = losses
        self.matrix = matrix

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.index_select(self.matrix, 0, rows.to(self.matrix.device), out=out)

    def finite(self) -> Tensor:
        return self.matrix.sum(dim=1).isfinite()

    def squared_distance(self, rows: Tensor, other: WorkerGradients) -> Tensor:
        assert isinstance(other, DenseGradients)
        pairs = zip(self.matrix[rows], other.matrix, strict=True)
        return torch.stack([torch.dist(ours, theirs).square() for ours, theirs in pairs])


class LoopEngine(Engine):
    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self.module = module
        self.layout = layout

    def gradients(
        self, step: Step, batch: Any, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> DenseGradients:
        vector = self.layout.vector
        matrix = vector.new_empty(len(noise), vector.numel())
        losses = vector.new_empty(len(noise))
        devices = [vector.device] if vector.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # the user's own random numbers go on undisturbed
            for row, origin in enumerate(noise):
                torch.manual_seed(int(np.random.SeedSequence(origin).generate_state(1)[0]))
                if parameters is not None:
                    self.layout.bind(parameters[row])
                try:
                    loss = step(tree_map_only(Tensor, aligned, pick(batch, row)))
                    gradient = torch.autograd.grad(loss, self.layout.parameters, allow_unused=True)
                finally:
                    self.layout.bind(vector)
                losses[row] = loss.detach()
                for out, part in zip(self.layout.views(matrix[row]), gradient, strict=True):
                    out.zero_() if part is None else out.copy_(part)
        return DenseGradients(losses, matrix)
