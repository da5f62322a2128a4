"""All workers at once through `torch.vmap`: fewer and larger kernels, for accelerators.

The last bits of a worker's numbers may depend on how many workers there are, so simulated and real workers do not match
bit for bit. Steps that draw random numbers are left to the loop.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines.at_once import AtOnceEngine, Stepping, vmapped
from bench.gradients.engines.base import Step, UnsupportedModule
from bench.gradients.engines.loop import DenseGradients
from bench.gradients.layout import Layout
from bench.gradients.traces import Notes
from bench.kernels.noise import Noise


class VmapEngine(AtOnceEngine):
    name = "vmap"
    tolerance = 1e-2  # rounding may move a value across a ReLU's kink

    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        super().__init__(module, layout, buffers)
        self.names = layout.names

    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> DenseGradients:
        if parameters is None:
            at, dim = dict(zip(self.names, self.layout.views(self.layout.vector), strict=True)), None
        else:
            at, dim = self._stacked(parameters), 0
        with self._first_pass(noise[0]):
            gradients, moved, notes = self._pass(at, dim, self.buffers.stacked(), step, shards)
        self.buffers.take(moved)
        notes.emit(self.module)
        return gradients

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> DenseGradients:
        with self._other_pass(noise[0]):
            return self._pass(self._stacked(parameters), 0, self.buffers.stacked(rows), step, shards)[0]

    def _stacked(self, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        """Parameters (R, …) by name."""
        by_row = zip(*(self.layout.views(vector) for vector in parameters), strict=True)
        return {name: torch.stack(views) for name, views in zip(self.names, by_row, strict=True)}

    def _pass(
        self, parameters: dict[str, Tensor], dim: int | None, buffers: dict[str, Tensor], step: Step, shards: Shards
    ) -> tuple[DenseGradients, dict[str, Tensor], Notes]:
        """Gradients, new buffers and logs. `dim`: the parameters' row dimension; None if all rows have the same."""
        stepping = Stepping(self.module, step)
        differentiated = torch.vmap(grad_and_value(stepping.at, has_aux=True), in_dims=(dim, 0, 0))
        with vmapped(self.name):
            gradients, (losses, (moved, tensors)) = differentiated(parameters, buffers, shards.stacked())
        if losses.requires_grad:
            raise UnsupportedModule("vmap; training_step reaches a parameter through another object than its module")
        matrix = self.layout.vector.new_empty(len(losses), self.layout.num_parameters)
        for row, vector in enumerate(matrix):
            for view, name in zip(self.layout.views(vector), self.names, strict=True):
                view.copy_(gradients[name][row])
        notes, extras = stepping.noted(tensors, len(losses))
        return DenseGradients(losses.detach().to(matrix.dtype), matrix, extras), moved, notes
