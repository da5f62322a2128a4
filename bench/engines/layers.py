"""Layers through which all workers go at once, and what each notes of a pass: the factors of its gradients.

The gradient of a linear layer is a sum of outer products, δᵀx over the samples of a worker; that of a convolution is a
sum over pixels, too. Inputs x and output gradients δ are enough, and a gradient is written only where it is read. A
lazy rule needs just ‖δᵀx − δ'ᵀx'‖², which small Gram matrices give without writing either.

A simulation must give the bits of real processes, and a product of ten workers' samples may round differently from
ten products. So workers go through a linear layer together only where that was tried and found to change nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.alignment import aligned, is_aligned
from bench.engines.base import UnsupportedModule

Views = Sequence[Tensor]
"""The parts of a vector (d,), each in its parameter's shape."""


class Layer(ABC):
    """A layer's part in a pass of R workers.

    Attributes:
        slots: the places of its parameters among the layout's.
        delta: (R, …) what came backward.
    """

    slots: tuple[int, ...]
    delta: Tensor

    @abstractmethod
    def write(self, row: int, views: Views) -> None:
        """Write one worker's gradient into its places, in a vector that begins a cache line."""

    @abstractmethod
    def squared_distance(self, row: int, other: Any, other_row: int) -> Tensor:
        """‖g − g'‖² between a worker's gradient here and one in another pass of the same layer."""

    def finite(self) -> Tensor:
        """(R,) bool: whether what came backward is free of NaN and infinity. An input that is not shows in the loss."""
        return self.delta.reshape(len(self.delta), -1).isfinite().all(dim=1)


@dataclass
class Tape:
    """One pass. `places`: parameter id -> slot; `groups`: which rows use which values of the parameters."""

    places: dict[int, int]
    groups: list[tuple[slice, Views]]
    layers: list[Layer] = field(default_factory=list)


@dataclass
class Linear(Layer):
    """y = xWᵀ + b. x: (R, N, in). delta: (R, N, out)."""

    slots: tuple[int, ...]
    x: Tensor
    delta: Tensor

    def write(self, row: int, views: Views) -> None:
        weight, *bias = self.slots
        delta = aligned(self.delta[row])
        torch.mm(delta.T, aligned(self.x[row]), out=views[weight])
        for slot in bias:
            torch.sum(delta, 0, out=views[slot])

    def squared_distance(self, row: int, other: "Linear", other_row: int) -> Tensor:
        # δᵀx − δ'ᵀx' = (δ − δ')ᵀx + δ'ᵀ(x − x'): no small difference of large products.
        x, delta = aligned(self.x[row]), self.delta[row] - other.delta[other_row]
        num_samples = len(x)
        if (dx := x - other.x[other_row]).any():
            x, delta = torch.cat([x, dx]), torch.cat([delta, other.delta[other_row]])
        gram = torch.mm(x, x.T)
        if len(self.slots) == 2:
            gram[:num_samples, :num_samples] += 1  # a bias is a weight whose x is 1, and whose x − x' is 0
        return gram.mul_(torch.mm(delta, delta.T)).sum()


@dataclass
class Convolution(Layer):
    """x: (R, B, C, H, W). delta: (R, B, C', H', W'). weight: any of its shape. geometry: conv2d's last arguments."""

    slots: tuple[int, ...]
    x: Tensor
    delta: Tensor
    weight: Tensor
    geometry: tuple[Any, ...]

    def write(self, row: int, views: Views) -> None:
        for slot, part in zip(self.slots, self._gradient(self.x[row], self.delta[row]), strict=True):
            views[slot].copy_(part)

    def squared_distance(self, row: int, other: "Convolution", other_row: int) -> Tensor:
        # As above: the gradient of a batch twice as long is the difference.
        x, delta, theirs = self.x[row], self.delta[row], other.delta[other_row]
        x, delta = torch.cat([x, x - other.x[other_row]]), torch.cat([delta - theirs, theirs])
        weight, *bias = self._gradient(x, delta)
        distance = weight.square().sum()
        for _ in bias:  # to which x − x' gives nothing
            distance += (self.delta[row] - theirs).sum(dim=(0, 2, 3)).square().sum()
        return distance

    def _gradient(self, x: Tensor, delta: Tensor) -> list[Tensor]:
        with_bias = len(self.slots) == 2
        _, weight, bias = _convolution_backward(x, delta, self.weight, self.geometry, (False, True, with_bias))
        return [weight, bias] if with_bias else [weight]


@dataclass
class Loose(Layer):
    """A parameter of no layer above, of which every worker had a copy. delta: (R, …), its gradient."""

    slots: tuple[int, ...]
    delta: Tensor

    def write(self, row: int, views: Views) -> None:
        views[self.slots[0]].copy_(self.delta[row])

    def squared_distance(self, row: int, other: "Loose", other_row: int) -> Tensor:
        return (self.delta[row] - other.delta[other_row]).square().sum()


class Intercept(TorchFunctionMode):
    """Sends the layers that a tape has places for past vmap. Apart from the tape, which travels as an argument."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        layer = {F.linear: self._linear, torch.conv2d: self._conv2d}.get(func, func)
        return layer(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        if not self._has_places(weight, bias):
            return F.linear(input, weight, bias)
        return _Batched.apply(input, weight, bias, self.tape, _WorkerLinear, ())

    def _conv2d(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        if not self._has_places(weight, bias) or isinstance(padding, str):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        geometry = (*(_pair(value) for value in (stride, padding, dilation)), groups)
        return _Batched.apply(input, weight, bias, self.tape, _WorkerConvolution, geometry)

    def _has_places(self, *parameters: Tensor | None) -> bool:
        return all(id(p) in self.tape.places for p in parameters if p is not None)


class _Batched(torch.autograd.Function):
    """Leaves vmap's world for that of real (R, …) tensors."""

    @staticmethod
    def forward(*args: Any) -> Any:
        raise UnsupportedModule("joint; a layer whose input does not depend on the batch")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        x, weight, bias, tape, worker, options = args
        if in_dims[0] is None or any(dim is not None for dim in in_dims[1:3]):
            raise UnsupportedModule("joint; a layer whose weight depends on the batch")
        return worker.apply(x.movedim(in_dims[0], 0), weight, bias, tape, options), 0


class _WorkerLinear(torch.autograd.Function):
    """y_m = x_m W_mᵀ + b_m for R workers; (R, *, in) -> (R, *, out). Backward notes δ and gives no weight gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tape: Tape, options: Any) -> Tensor:
        ctx.slots = _slots(tape, weight, bias)
        flat = x.reshape(len(x), -1, x.shape[-1])
        y = x.new_empty(*flat.shape[:2], len(weight))
        for rows, values in tape.groups:
            own, *own_bias = (values[slot] for slot in ctx.slots)
            _multiply(flat[rows], own.T, own_bias[0] if own_bias else None, out=y[rows])
        ctx.tape, ctx.flat, ctx.shape = tape, flat.detach(), x.shape
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        delta = dy.reshape(*ctx.flat.shape[:2], -1)
        ctx.tape.layers.append(Linear(ctx.slots, ctx.flat, delta))
        if not ctx.needs_input_grad[0]:
            return (None,) * 5
        dx = torch.empty_like(ctx.flat)
        for rows, values in ctx.tape.groups:
            _multiply(delta[rows], values[ctx.slots[0]], None, out=dx[rows])
        return dx.view(ctx.shape), None, None, None, None


class _WorkerConvolution(torch.autograd.Function):
    """conv2d for R workers as one batch, (R, B, C, H, W) -> (R, B, C', H', W'); those with other weights apart."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tape: Tape, geometry: Any) -> Tensor:
        ctx.slots, ctx.tape, ctx.x, ctx.geometry = _slots(tape, weight, bias), tape, x.detach(), geometry
        parts = []
        for rows, values in tape.groups:
            own, *own_bias = (values[slot] for slot in ctx.slots)
            parts.append(torch.conv2d(x[rows].flatten(0, 1), own, own_bias[0] if own_bias else None, *geometry))
        return _joined(parts).unflatten(0, x.shape[:2])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight = ctx.tape.groups[0][1][ctx.slots[0]]
        ctx.tape.layers.append(Convolution(ctx.slots, ctx.x, dy, weight, ctx.geometry))
        if not ctx.needs_input_grad[0]:
            return (None,) * 5
        parts = []
        for rows, values in ctx.tape.groups:
            x, delta = ctx.x[rows].flatten(0, 1), dy[rows].flatten(0, 1)
            mask = (True, False, False)
            parts.append(_convolution_backward(x, delta, values[ctx.slots[0]], ctx.geometry, mask)[0])
        return _joined(parts).unflatten(0, ctx.x.shape[:2]), None, None, None, None


def _convolution_backward(
    x: Tensor, delta: Tensor, weight: Tensor, geometry: tuple[Any, ...], mask: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a convolution's input, weight and bias: those that the mask asks for."""
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        delta, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0, 0], groups, mask
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _slots(tape: Tape, *parameters: Tensor | None) -> tuple[int, ...]:
    return tuple(tape.places[id(p)] for p in parameters if p is not None)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


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
