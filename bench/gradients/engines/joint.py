"""All workers at once: linear layers and convolutions take them as one batch, and record factors of their gradients.

Everything else in a module runs under `torch.vmap`, with one row of buffers per worker, and one copy per worker of each
parameter outside such layers, such as batch norm's.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines.at_once import AtOnceEngine, Stepping, vmapped
from bench.gradients.engines.base import RowGradients, Step, UnsupportedModule, WorkerGradients, without_gradients
from bench.gradients.engines.intercept import Intercept
from bench.gradients.engines.layers import Layer, Loose, Tape
from bench.gradients.layout import Layout
from bench.gradients.traces import Notes
from bench.kernels.alignment import is_aligned
from bench.kernels.noise import Noise


class FactoredGradients(WorkerGradients):
    """Gradients as the factors that each layer recorded."""

    def __init__(
        self, losses: Tensor, layers: list[Layer], layout: Layout, extras: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.losses = losses
        self.extras = extras
        self.layers = layers
        self.layout = layout
        used = {slot for layer in layers for slot in layer.slots}
        self.unused = [slot for slot in range(len(layout.sizes)) if slot not in used]

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        layout = self.layout
        if out is None:
            out = layout.vector.new_empty(len(rows), layout.num_parameters)
        for row, into in zip(rows.tolist(), out, strict=True):
            gradient = into if is_aligned(into) else torch.empty_like(into)
            self._write(row, layout.views(gradient))
            if gradient is not into:
                into.copy_(gradient)
        return out

    def sum(self, rows: Tensor) -> Tensor:
        first, *others = rows.tolist()
        total, scratch = torch.empty_like(self.layout.vector), torch.empty_like(self.layout.vector)
        self._write(first, self.layout.views(total))
        views = self.layout.views(scratch)
        for row in others:
            self._write(row, views)
            total.add_(scratch)
        return total

    def _write(self, row: int, views: list[Tensor]) -> None:
        for layer in self.layers:
            layer.write(row, views)
        for slot in self.unused:
            views[slot].zero_()

    def finite(self) -> Tensor:
        return torch.stack([layer.finite() for layer in self.layers]).all(dim=0)

    def squared_distance(self, rows: Tensor, other: RowGradients) -> Tensor:
        if not isinstance(other, FactoredGradients):
            return super().squared_distance(rows, other)
        pairs = [(ours, theirs) for ours in self.layers for theirs in other.layers if ours.slots == theirs.slots]
        distances = []
        for i, row in enumerate(rows.tolist()):
            total = self.layout.vector.new_zeros(())
            for ours, theirs in pairs:
                total += ours.squared_distance(row, theirs, i)
            distances.append(total)
        return torch.stack(distances).clamp_(min=0)  # rounding may take a zero sum below zero


class JointEngine(AtOnceEngine):
    name = "joint"

    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        super().__init__(module, layout, buffers)
        slots = {id(p): slot for slot, p in enumerate(layout.parameters)}
        layers = [m for m in module.modules() if type(m) in (nn.Linear, nn.Conv2d)]
        self.places = {id(p): slots[id(p)] for m in layers for p in m.parameters(recurse=False) if id(p) in slots}
        named = zip(layout.names, layout.parameters, strict=True)
        self.loose = {name: slots[id(p)] for name, p in named if id(p) not in self.places}

    @property
    def tolerance(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1e-5 if self.is_exact() else 1e-2  # rounding may move a value across a ReLU's kink

    def is_exact(self) -> bool:
        """Whether a worker's bits do not depend on the others: all parameters in linear layers, and no buffers."""
        convolves = any(type(m) is nn.Conv2d for m in self.module.modules())
        return not (convolves or self.loose or any(True for _ in self.module.buffers()))

    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> FactoredGradients:
        parameters = parameters or [self.layout.vector] * len(noise)
        with self._first_pass(noise[0]):
            gradients, moved, notes = self._pass(parameters, self.buffers.stacked(), step, shards)
        self.buffers.take(moved)
        self.unreached.update(gradients.unused)
        notes.emit(self.module)
        return gradients

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> FactoredGradients:
        with self._other_pass(noise[0]):
            return self._pass(parameters, self.buffers.stacked(rows), step, shards)[0]

    def _pass(
        self, parameters: Sequence[Tensor], buffers: dict[str, Tensor], step: Step, shards: Shards
    ) -> tuple[FactoredGradients, dict[str, Tensor], Notes]:
        """Gradients, new buffers and logs."""
        layout, stepping = self.layout, Stepping(self.module, step)
        groups, start = [], 0
        for _, same in groupby(parameters, key=id):  # neighbours with the same parameters, as all have in a round
            vectors = list(same)
            groups.append((slice(start, start := start + len(vectors)), vectors[0]))
        tape = Tape(self.places, [(rows, layout.views(vector)) for rows, vector in groups])
        copies = {
            name: torch.cat(
                [views[slot].detach().expand(rows.stop - rows.start, *views[slot].shape) for rows, views in tape.groups]
            ).requires_grad_()
            for name, slot in self.loose.items()
        }
        with vmapped(self.name), Intercept(tape):
            losses, (moved, tensors) = torch.vmap(stepping.at)(copies, buffers, shards.stacked())
        if losses.shape != (len(parameters),):
            raise UnsupportedModule("joint; training_step does not return a scalar loss")
        with without_gradients(layout.parameters):
            with vmapped(self.name):
                losses.sum().backward()
            # Layers record factors and leave no gradient, so any gradient comes from another use of the parameter.
            if any(parameter.grad is not None for parameter in layout.parameters):
                raise UnsupportedModule("joint; a parameter is used outside its layer")
        if len({layer.slots for layer in tape.layers}) != len(tape.layers):
            raise UnsupportedModule("joint; a layer is used twice")
        noted = [(slot, copies[name].grad) for name, slot in self.loose.items()]
        loose = [Loose((slot,), gradient) for slot, gradient in noted if gradient is not None]
        notes, extras = stepping.noted(tensors, len(losses))
        losses = losses.detach().to(layout.vector.dtype)
        return FactoredGradients(losses, [*tape.layers, *loose], layout, extras), moved, notes
