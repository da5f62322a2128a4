"""Runs linear layers and convolutions outside vmap, for all workers at once, and records their factors on a tape.

A simulation must match real processes bit for bit, and one product of ten workers' samples may round differently from
ten products. So on a CPU workers share a linear layer's product only where a trial shows that it changes no bit. Joint
convolutions are for accelerators: on a CPU ten small ones stay in the cache and are faster.
"""

from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.gradients.engines.base import UnsupportedModule
from bench.gradients.engines.layers import Convolution, Linear, Tape, convolution_backward
from bench.kernels.alignment import aligned, is_aligned


class Intercept(TorchFunctionMode):
    """Runs the layers whose parameters are on a tape outside vmap. The layers get the tape as an argument."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        layers = {F.linear: self._linear, torch.conv2d: self._conv2d}
        return layers.get(func, func)(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        if not self._has_places(weight, bias):
            return F.linear(input, weight, bias)
        return _Batched.apply(partial(_WorkerLinear.apply, self.tape), input, weight, bias)

    def _conv2d(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        if not self._has_places(weight, bias) or isinstance(padding, str):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        geometry = (*(_pair(value) for value in (stride, padding, dilation)), groups)
        return _Batched.apply(partial(_WorkerConvolution.apply, self.tape, geometry), input, weight, bias)

    def _has_places(self, *parameters: Tensor | None) -> bool:
        return all(id(p) in self.tape.places for p in parameters if p is not None)


class _Batched(torch.autograd.Function):
    """Leaves vmap: passes the layer real (R, …) tensors. Arguments: the layer, its input, weight and bias."""

    @staticmethod
    def forward(*args: Any) -> Any:
        raise UnsupportedModule("joint; a layer whose input does not depend on the batch")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        layer, x, weight, bias = args
        *_, dim, weight_dim, bias_dim = in_dims
        if dim is None or weight_dim is not None or bias_dim is not None:
            raise UnsupportedModule("joint; a layer whose weight depends on the batch")
        return layer(x.movedim(dim, 0), weight, bias), 0


class _WorkerLinear(torch.autograd.Function):
    """y_m = x_m W_mᵀ + b_m for R workers; (R, *, in) -> (R, *, out). Backward records δ, not a weight gradient."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.slots, ctx.tape, ctx.shape = _slots(tape, weight, bias), tape, x.shape
        ctx.flat = _autocast(x).detach().reshape(len(x), -1, x.shape[-1])
        ctx.values = _values(tape, ctx.slots, ctx.flat.dtype)
        y = ctx.flat.new_empty(*ctx.flat.shape[:2], len(weight))
        for rows, own, *own_bias in ctx.values:
            _multiply(ctx.flat[rows], own.T, own_bias[0] if own_bias else None, out=y[rows])
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        delta = dy.reshape(*ctx.flat.shape[:2], -1)
        ctx.tape.layers.append(Linear(ctx.slots, ctx.flat, delta))
        if not ctx.needs_input_grad[1]:
            return (None,) * 4
        dx = ctx.flat.new_empty(ctx.flat.shape)  # contiguous, whatever the input's memory format
        for rows, own, *_ in ctx.values:
            _multiply(delta[rows], own, None, out=dx[rows])
        return None, dx.view(ctx.shape), None, None


class _WorkerConvolution(torch.autograd.Function):
    """conv2d for R workers as one batch, (R, B, C, H, W) -> (R, B, C', H', W'); one batch per set of weights."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, geometry: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.slots, ctx.tape, ctx.geometry = _slots(tape, weight, bias), tape, geometry
        ctx.x = _autocast(x).detach()
        ctx.values = _values(tape, ctx.slots, ctx.x.dtype)
        parts = []
        for rows, own, *own_bias in ctx.values:
            parts.append(torch.conv2d(ctx.x[rows].flatten(0, 1), own, own_bias[0] if own_bias else None, *geometry))
        return _joined(parts).unflatten(0, x.shape[:2])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.tape.layers.append(Convolution(ctx.slots, ctx.x, dy, ctx.values[0][1], ctx.geometry))
        if not ctx.needs_input_grad[2]:
            return (None,) * 5
        parts, mask = [], (True, False, False)
        for rows, own, *_ in ctx.values:
            x, delta = ctx.x[rows].flatten(0, 1), dy[rows].flatten(0, 1)
            parts.append(convolution_backward(x, delta, own, ctx.geometry, mask)[0])
        return None, None, _joined(parts).unflatten(0, ctx.x.shape[:2]), None, None


def _autocast(x: Tensor) -> Tensor:
    """A layer's input, cast as autocast would if it is on."""
    device = x.device.type
    casts = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(device)) if casts else x


def _values(tape: Tape, slots: tuple[int, ...], dtype: torch.dtype) -> list[tuple[Any, ...]]:
    """Groups of rows, each with its parameters in `dtype`."""
    return [(rows, *(values[slot].to(dtype) for slot in slots)) for rows, values in tape.groups]


def _slots(tape: Tape, *parameters: Tensor | None) -> tuple[int, ...]:
    return tuple(tape.places[id(p)] for p in parameters if p is not None)


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """out_m = x_m · weight + bias for R workers, (R, N, in) · (in, out); on a CPU as if each alone, bit for bit."""
    if _multiplies_jointly(x.shape, tuple(weight.shape), weight.stride(), x.dtype, x.device):
        x, out = x.flatten(0, 1)[None], out.flatten(0, 1)[None]
    for a, y in zip(x, out, strict=True):
        into = y if is_aligned(y) else torch.empty_like(y)
        torch.mm(aligned(a), weight, out=into) if bias is None else torch.addmm(bias, aligned(a), weight, out=into)
        if into is not y:
            y.copy_(into)


@cache
def _multiplies_jointly(
    shape: torch.Size,
    weight_shape: tuple[int, ...],
    weight_stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> bool:
    """Whether one product for all workers gives the same bits as one product each, or need not.

    Libraries choose their order of summation by shape, so it is tried, on random numbers from a separate generator.
    """
    if shape[0] == 1 or device.type != "cpu":
        return True
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    weight = torch.empty_strided(weight_shape, weight_stride, dtype=dtype)
    weight.copy_(torch.randn(weight_shape, generator=generator))
    bias = torch.randn(weight_shape[1], generator=generator, dtype=dtype)
    alone = torch.cat([torch.addmm(bias, aligned(a), weight) for a in x])
    alone_mm = torch.cat([torch.mm(aligned(a), weight) for a in x])
    together = x.flatten(0, 1)
    return torch.equal(alone, torch.addmm(bias, together, weight)) and torch.equal(alone_mm, torch.mm(together, weight))
