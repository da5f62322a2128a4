"""All workers at once, for networks whose parameters all lie in linear layers.

The gradient of a linear layer is a sum of outer products, δᵀx over the samples of a worker. So the workers go
through the network together, the layers note inputs x and output gradients δ, and δᵀx is written only for workers
that upload. A lazy rule needs just ‖δᵀx − δ'ᵀx'‖², which small Gram matrices give without writing either.

A simulation must give the bits of real processes, and a product of ten workers' samples may round differently from
ten products. So workers are multiplied together only where that was tried and found to change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.alignment import aligned, is_aligned
from bench.engines.base import (
    Engine,
    RowGradients,
    Step,
    UnsupportedModule,
    WorkerGradients,
    logging_replaced,
    refuse_to_log,
)
from bench.layout import Layout
from bench.noise import Noise


@dataclass
class Layer:
    """One linear layer's part in a pass. `weight`, `bias`: its places among the layout's parameters."""

    weight: int
    bias: int | None
    x: Tensor  # (R, N, in)
    delta: Tensor  # (R, N, out)


class FactoredGradients(WorkerGradients):
    """Gradients as the factors x and δ of every layer."""

    def __init__(self, losses: Tensor, layers: list[Layer], layout: Layout) -> None:
        self.losses = losses
        self.layers = layers
        self.layout = layout
        used = {slot for layer in layers for slot in (layer.weight, layer.bias)}
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
        """One worker's gradient into the shaped views of a vector that begins a cache line."""
        for layer in self.layers:
            delta = aligned(layer.delta[row])
            torch.mm(delta.T, aligned(layer.x[row]), out=views[layer.weight])
            if layer.bias is not None:
                torch.sum(delta, 0, out=views[layer.bias])
        for slot in self.unused:
            views[slot].zero_()

    def finite(self) -> Tensor:
        # An input that is not finite shows in the loss; what only backward may bring shows in the deltas.
        return torch.stack([layer.delta.isfinite().flatten(1).all(dim=1) for layer in self.layers]).all(dim=0)

    def squared_distance(self, rows: Tensor, other: RowGradients) -> Tensor:
        assert isinstance(other, FactoredGradients)
        pairs = [(ours, theirs) for ours in self.layers for theirs in other.layers if ours.weight == theirs.weight]
        distances = []
        for i, row in enumerate(rows.tolist()):
            total = self.losses.new_zeros(())
            for ours, theirs in pairs:
                # δᵀx − δ'ᵀx' = (δ − δ')ᵀx + δ'ᵀ(x − x'): no small difference of large products.
                x, delta = aligned(ours.x[row]), ours.delta[row] - theirs.delta[i]
                num_samples = len(x)
                if (dx := x - theirs.x[i]).any():
                    x, delta = torch.cat([x, dx]), torch.cat([delta, theirs.delta[i]])
                gram = torch.mm(x, x.T)
                if ours.bias is not None:
                    gram[:num_samples, :num_samples] += 1  # a bias is a weight whose x is 1, and whose x − x' is 0
                total += gram.mul_(torch.mm(delta, delta.T)).sum()
            distances.append(total)
        return torch.stack(distances).clamp_(min=0)  # a sum that should be zero may round below it


class LinearEngine(Engine):
    """
    Args:
        module: every trainable parameter belongs to one `nn.Linear`; no buffers, no dropout, no logging in the step.
        layout: its parameters.
    """

    tolerance = 1e-5

    def __init__(self, module: lightning.LightningModule, layout: Layout) -> None:
        self.module = module
        self.layout = layout
        self.slots = {id(p): slot for slot, p in enumerate(layout.parameters)}

    @staticmethod
    def fits(module: nn.Module, layout: Layout) -> bool:
        """Whether trying is worth it: the first round still compares its gradients with the loop's."""
        linear = [p for m in module.modules() if type(m) is nn.Linear for p in m.parameters(recurse=False)]
        names = {id(p) for p in linear}
        has_buffers = next(module.buffers(), None) is not None
        return len(names) == len(linear) and all(id(p) in names for p in layout.parameters) and not has_buffers

    def gradients(self, step: Step, batch: Any, noise: Sequence[Noise]) -> FactoredGradients:
        return self._gradients([(slice(None), self.layout.vector)], step, batch, len(noise))

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, batch: Any, noise: Sequence[Noise]
    ) -> FactoredGradients:
        groups = [(slice(row, row + 1), vector) for row, vector in enumerate(parameters)]
        return self._gradients(groups, step, batch, len(noise))

    def _gradients(
        self, groups: Sequence[tuple[slice, Tensor]], step: Step, batch: Any, num_rows: int
    ) -> FactoredGradients:
        """`groups`: rows, and the parameters (d,) that are theirs."""
        tape = _Tape(self.slots, [(rows, self.layout.views(vector)) for rows, vector in groups])
        with logging_replaced(self.module, refuse_to_log), _Intercept(tape):
            losses = torch.vmap(step)(batch)
        if losses.shape != (num_rows,):
            raise UnsupportedModule("training_step does not return a scalar loss")
        for parameter in self.layout.parameters:
            parameter.grad = None
        losses.sum().backward()
        # Layers leave their factors on the tape and no gradient, so a gradient came some other way.
        if any(parameter.grad is not None for parameter in self.layout.parameters):
            raise UnsupportedModule("a parameter is used outside its linear layer")
        if len({layer.weight for layer in tape.layers}) != len(tape.layers):
            raise UnsupportedModule("a linear layer is used twice")
        return FactoredGradients(losses.detach(), tape.layers, self.layout)


@dataclass
class _Tape:
    """One pass: where each parameter lies, which rows use which values of them, and what the layers noted."""

    slots: dict[int, int]
    groups: list[tuple[slice, list[Tensor]]]
    layers: list[Layer] = field(default_factory=list)


class _Intercept(TorchFunctionMode):
    """Sends every linear layer through `_WorkerLinear`. Apart from the tape, which travels as an argument."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (self._linear if func is F.linear else func)(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if any(id(p) not in self.tape.slots for p in (weight, bias) if p is not None):
            return F.linear(input, weight, bias)
        return _BatchedLinear.apply(input, weight, bias, self.tape)  # pyright: ignore[reportReturnType]


class _BatchedLinear(torch.autograd.Function):
    """Leaves vmap's world for that of real (R, …) tensors."""

    @staticmethod
    def forward(*args: Any) -> Any:
        raise UnsupportedModule("a linear layer whose input does not depend on the batch")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        x, weight, bias, tape = args
        if in_dims[0] is None or any(dim is not None for dim in in_dims[1:3]):
            raise UnsupportedModule("a linear layer whose weight depends on the batch")
        return _WorkerLinear.apply(x.movedim(in_dims[0], 0), weight, bias, tape), 0


class _WorkerLinear(torch.autograd.Function):
    """y_m = x_m W_mᵀ + b_m for R workers; (R, *, in) -> (R, *, out). Backward notes δ and gives no weight gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tape: _Tape) -> Tensor:
        slot, bias_slot = tape.slots[id(weight)], None if bias is None else tape.slots[id(bias)]
        flat = x.reshape(len(x), -1, x.shape[-1])
        y = x.new_empty(*flat.shape[:2], len(weight))
        for rows, values in tape.groups:
            _multiply(flat[rows], values[slot].T, None if bias_slot is None else values[bias_slot], out=y[rows])
        ctx.tape, ctx.slot, ctx.bias_slot, ctx.flat, ctx.shape = tape, slot, bias_slot, flat.detach(), x.shape
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        delta = dy.reshape(*ctx.flat.shape[:2], -1)
        ctx.tape.layers.append(Layer(ctx.slot, ctx.bias_slot, ctx.flat, delta))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        dx = torch.empty_like(ctx.flat)
        for rows, values in ctx.tape.groups:
            _multiply(delta[rows], values[ctx.slot], None, out=dx[rows])
        return dx.view(ctx.shape), None, None, None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """out_m = x_m · weight + bias for R workers, (R, N, in) · (in, out); each as if multiplied alone, bit for bit."""
    if len(x) > 1 and _joint_product_is_exact(x.shape, tuple(weight.shape), weight.stride(), x.dtype, x.device):
        x, out = x.flatten(0, 1)[None], out.flatten(0, 1)[None]
    for a, y in zip(x, out, strict=True):
        into = y if is_aligned(y) else torch.empty_like(y)
        torch.mm(aligned(a), weight, out=into) if bias is None else torch.addmm(bias, aligned(a), weight, out=into)
        if into is not y:
            y.copy_(into)


@cache
def _joint_product_is_exact(
    shape: torch.Size,
    weight_shape: tuple[int, ...],
    weight_stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> bool:
    """Whether one product for all workers gives the bits of one product each, here and for these shapes.

    Libraries choose their order of summation by shape, so it is tried, on random numbers of a generator of its own.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=dtype).to(device)
    weight = torch.empty_strided(weight_shape, weight_stride, dtype=dtype, device=device)
    weight.copy_(torch.randn(weight_shape, generator=generator))
    bias = torch.randn(weight_shape[1], generator=generator, dtype=dtype).to(device)
    alone = torch.cat([torch.addmm(bias, aligned(a), weight) for a in x])
    alone_mm = torch.cat([torch.mm(aligned(a), weight) for a in x])
    together = x.flatten(0, 1)
    return torch.equal(alone, torch.addmm(bias, together, weight)) and torch.equal(alone_mm, torch.mm(together, weight))
