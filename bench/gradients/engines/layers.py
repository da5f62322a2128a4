"""The factors of all workers' gradients, recorded per layer in one pass.

The gradient of a linear layer is a sum of outer products over a worker's samples, δᵀx; that of a convolution also sums
over pixels. Inputs x and output gradients δ determine it, so a gradient is written only when it is read. A lazy rule
needs only ‖δᵀx − δ'ᵀx'‖², which small Gram matrices give without writing either gradient. Factors may be in half
precision; sums over them are not.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.kernels.alignment import aligned
from bench.kernels.sums import wide

Views = Sequence[Tensor]
"""The parts of a vector (d,), each in its parameter's shape."""


class Layer(ABC):
    """One layer's record of a pass of R workers.

    Attributes:
        slots: the indices of its parameters in the layout.
        delta: (R, …) the gradient that the backward pass gave it.
    """

    slots: tuple[int, ...]
    delta: Tensor

    @abstractmethod
    def write(self, row: int, views: Views) -> None:
        """Write one worker's gradient to its slots in a vector that begins a cache line."""

    @abstractmethod
    def squared_distance(self, row: int, other: Any, other_row: int) -> Tensor:
        """‖g − g'‖² between a worker's gradient here and one from another pass of the same layer."""

    def finite(self) -> Tensor:
        """(R,) bool: whether `delta` is free of NaN and infinity. A non-finite input shows in the loss."""
        return self.delta.reshape(len(self.delta), -1).isfinite().all(dim=1)


@dataclass
class Tape:
    """The record of one pass. `places`: parameter id -> slot; `groups`: rows, and the parameter values they use."""

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
        x, delta = aligned(self.x[row]), aligned(self.delta[row])
        if delta.dtype == views[weight].dtype:
            torch.mm(delta.T, x, out=views[weight])
        else:
            views[weight].copy_(torch.mm(delta.T, x))
        for slot in bias:
            torch.sum(delta, 0, dtype=views[slot].dtype, out=views[slot])

    def squared_distance(self, row: int, other: "Linear", other_row: int) -> Tensor:
        # δᵀx − δ'ᵀx' = (δ − δ')ᵀx + δ'ᵀ(x − x') avoids a small difference of large products.
        x, theirs = aligned(wide(self.x[row])), wide(other.delta[other_row])
        delta, num_samples = wide(self.delta[row]) - theirs, len(x)
        if (dx := x - other.x[other_row]).any():
            x, delta = torch.cat([x, dx]), torch.cat([delta, theirs])
        gram = torch.mm(x, x.T)
        if len(self.slots) == 2:
            gram[:num_samples, :num_samples] += 1  # a bias is a weight whose x is 1, and whose x − x' is 0
        return gram.mul_(torch.mm(delta, delta.T)).sum()


@dataclass
class Convolution(Layer):
    """x: (R, B, C, H, W). delta: (R, B, C', H', W'). weight: any tensor of its shape. geometry: conv2d's last four."""

    slots: tuple[int, ...]
    x: Tensor
    delta: Tensor
    weight: Tensor
    geometry: tuple[Any, ...]

    def write(self, row: int, views: Views) -> None:
        for slot, part in zip(self.slots, self._gradient(self.x[row], self.delta[row]), strict=True):
            views[slot].copy_(part)

    def squared_distance(self, row: int, other: "Convolution", other_row: int) -> Tensor:
        # As above: the difference is the gradient of a batch twice as long.
        x, delta, theirs = self.x[row], self.delta[row], other.delta[other_row]
        x, delta = torch.cat([x, x - other.x[other_row]]), torch.cat([delta - theirs, theirs])
        weight, *bias = self._gradient(x, delta)
        distance = wide(weight).square().sum()
        for _ in bias:  # x − x' contributes nothing to a bias
            distance += (wide(self.delta[row]) - theirs).sum(dim=(0, 2, 3)).square().sum()
        return distance

    def _gradient(self, x: Tensor, delta: Tensor) -> list[Tensor]:
        with_bias = len(self.slots) == 2
        _, weight, bias = convolution_backward(x, delta, self.weight, self.geometry, (False, True, with_bias))
        return [weight, bias] if with_bias else [weight]


@dataclass
class Loose(Layer):
    """A parameter outside such layers, of which every worker had a copy. delta: (R, …), its gradient."""

    slots: tuple[int, ...]
    delta: Tensor

    def write(self, row: int, views: Views) -> None:
        views[self.slots[0]].copy_(self.delta[row])

    def squared_distance(self, row: int, other: "Loose", other_row: int) -> Tensor:
        return (self.delta[row] - other.delta[other_row]).square().sum()


def convolution_backward(
    x: Tensor, delta: Tensor, weight: Tensor, geometry: tuple[Any, ...], mask: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a convolution's input, weight and bias, those that the mask selects."""
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        delta, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0, 0], groups, mask
    )
