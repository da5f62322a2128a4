"""All workers at once through `torch.vmap`: fewer and larger kernels, for accelerators.

A worker's numbers may depend on how many there are beside it, by the last bits, so that simulated and real workers are
not the same to the bit. Steps that draw random numbers, or log, are left to the loop.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from bench.buffers import WorkerBuffers
from bench.engines.base import Engine, Step, Stepping, vmapped
from bench.engines.loop import DenseGradients
from bench.engines.traces import without_traces
from bench.layout import Layout
from bench.noise import Noise


class VmapEngine(Engine):
    tolerance = 1e-2  # what was rounded otherwise may cross a ReLU's kink

    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        super().__init__(module, layout, buffers)
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]

    def gradients(
        self, step: Step, batch: Any, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> DenseGradients:
        if parameters is None:
            at, dim = dict(zip(self.names, self.layout.views(self.layout.vector), strict=True)), None
        else:
            at, dim = self._stacked(parameters), 0
        gradients, self.buffers.rows = self._pass(at, dim, self.buffers.rows, step, batch)
        return gradients

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, batch: Any, noise: Sequence[Noise]
    ) -> DenseGradients:
        buffers = {name: values[list(rows)] for name, values in self.buffers.rows.items()}
        with without_traces(self.module):
            return self._pass(self._stacked(parameters), 0, buffers, step, batch)[0]

    def _stacked(self, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        """Parameters (R, …) by name."""
        by_row = zip(*(self.layout.views(vector) for vector in parameters), strict=True)
        return {name: torch.stack(views) for name, views in zip(self.names, by_row, strict=True)}

    def _pass(
        self, parameters: dict[str, Tensor], dim: int | None, buffers: dict[str, Tensor], step: Step, batch: Any
    ) -> tuple[DenseGradients, dict[str, Tensor]]:
        """Gradients and new buffers. `dim`: along which parameters differ by row; None where all have the same."""
        differentiated = torch.vmap(grad_and_value(Stepping(self.module, step).at, has_aux=True), in_dims=(dim, 0, 0))
        with vmapped("vmap", self.module):
            gradients, (losses, moved) = differentiated(parameters, buffers, batch)
        matrix = self.layout.vector.new_empty(len(losses), self.layout.num_parameters)
        for row, vector in enumerate(matrix):
            for view, name in zip(self.layout.views(vector), self.names, strict=True):
                view.copy_(gradients[name][row])
        return DenseGradients(losses.detach().to(matrix.dtype), matrix), moved
