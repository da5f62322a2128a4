"""All workers at once: linear layers and convolutions take them as one batch, and note factors of their gradients.

Whatever else there is in a module goes through `torch.vmap`: with buffers a row a worker, and with a copy a worker of
each parameter that lies in no such layer, batch norm's for instance.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from bench.alignment import is_aligned
from bench.buffers import WorkerBuffers
from bench.engines.base import (
    Engine,
    RowGradients,
    Step,
    Stepping,
    UnsupportedModule,
    WorkerGradients,
    vmapped,
)
from bench.engines.intercept import Intercept
from bench.engines.layers import Layer, Loose, Tape
from bench.engines.traces import without_traces
from bench.layout import Layout
from bench.noise import Noise


class FactoredGradients(WorkerGradients):
    """Gradients as the factors that every layer noted."""

    def __init__(self, losses: Tensor, layers: list[Layer], layout: Layout) -> None:
        self.losses = losses
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
        assert isinstance(other, FactoredGradients)
        pairs = [(ours, theirs) for ours in self.layers for theirs in other.layers if ours.slots == theirs.slots]
        distances = []
        for i, row in enumerate(rows.tolist()):
            total = self.layout.vector.new_zeros(())
            for ours, theirs in pairs:
                total += ours.squared_distance(row, theirs, i)
            distances.append(total)
        return torch.stack(distances).clamp_(min=0)  # a sum that should be zero may round below it


class JointEngine(Engine):
    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        super().__init__(module, layout, buffers)
        slots = {id(p): slot for slot, p in enumerate(layout.parameters)}
        layers = [m for m in module.modules() if type(m) in (nn.Linear, nn.Conv2d)]
        self.places = {id(p): slots[id(p)] for m in layers for p in m.parameters(recurse=False) if id(p) in slots}
        trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.loose = {name: slots[id(p)] for name, p in trainable if id(p) not in self.places}

    @property
    def tolerance(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1e-5 if self.is_exact() else 1e-2  # what was rounded otherwise may cross a ReLU's kink

    def is_exact(self) -> bool:
        """Whether a worker's bits do not depend on who is beside it: where all parameters lie in linear layers."""
        convolves = any(type(m) is nn.Conv2d for m in self.module.modules())
        return not (convolves or self.loose or self.buffers.rows)

    def gradients(
        self, step: Step, batch: Any, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> FactoredGradients:
        parameters = parameters or [self.layout.vector] * len(noise)
        gradients, self.buffers.rows = self._pass(parameters, self.buffers.rows, step, batch)
        return gradients

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, batch: Any, noise: Sequence[Noise]
    ) -> FactoredGradients:
        buffers = {name: values[list(rows)] for name, values in self.buffers.rows.items()}
        with without_traces(self.module):
            return self._pass(parameters, buffers, step, batch)[0]

    def _pass(
        self, parameters: Sequence[Tensor], buffers: dict[str, Tensor], step: Step, batch: Any
    ) -> tuple[FactoredGradients, dict[str, Tensor]]:
        """Gradients and new buffers."""
        module, layout = self.module, self.layout
        groups, start = [], 0
        for _, same in groupby(parameters, key=id):  # neighbours that have the same, as all have in a round
            vectors = list(same)
            groups.append((slice(start, start := start + len(vectors)), vectors[0]))
        tape = Tape(self.places, [(rows, layout.views(vector)) for rows, vector in groups])
        copies = {
            name: torch.cat(
                [views[slot].detach().expand(rows.stop - rows.start, *views[slot].shape) for rows, views in tape.groups]
            ).requires_grad_()
            for name, slot in self.loose.items()
        }
        with vmapped("joint", module), Intercept(tape):
            losses, moved = torch.vmap(Stepping(module, step).at)(copies, buffers, batch)
        if losses.shape != (len(parameters),):
            raise UnsupportedModule("joint; training_step does not return a scalar loss")
        for parameter in layout.parameters:
            parameter.grad = None
        losses.sum().backward()
        # Layers leave their factors on the tape and no gradient, so a gradient came some other way.
        if any(parameter.grad is not None for parameter in layout.parameters):
            raise UnsupportedModule("joint; a parameter is used outside its layer")
        if len({layer.slots for layer in tape.layers}) != len(tape.layers):
            raise UnsupportedModule("joint; a layer is used twice")
        noted = [(slot, copies[name].grad) for name, slot in self.loose.items()]
        loose = [Loose((slot,), gradient) for slot, gradient in noted if gradient is not None]
        return FactoredGradients(losses.detach().to(layout.vector.dtype), [*tape.layers, *loose], layout), moved
