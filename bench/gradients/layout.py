"""Parameters as one flat vector.

The trainable parameters of a module become views of a single vector of shape (d,), in the order of
`module.named_parameters()` and each in the order that its entries have in memory. Reading all parameters, stepping
back to old ones or handing a direction to the optimizer then costs one copy or none.
"""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Literal, Self

import torch
from torch import Tensor, nn

from bench.errors import InputError

Granularity = Literal["tensor", "model"]


class MatrixSize(int):
    """How many entries a segment has that is a matrix, one row after another. `num_rows`: how many of these."""

    num_rows: int

    def __new__(cls, size: int, num_rows: int) -> Self:
        self = super().__new__(cls, size)
        self.num_rows = num_rows
        return self

    def __getnewargs__(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]  to be copied by
        return int(self), self.num_rows


def num_rows_of(size: int) -> int:
    """The rows of a segment of this size, 1 where it is no matrix."""
    return size.num_rows if isinstance(size, MatrixSize) else 1


class Layout:
    """The flat vector of a module's trainable parameters, and where each tensor lies in it.

    Args:
        parameters: (name, parameter) pairs. They are adopted: their storage becomes a slice of `vector`. Those that
            have no entries, or are frozen, stay what they are.

    Attributes:
        names, parameters, sizes: of each tensor in the vector, in its order.
        vector: (d,).

    Raises:
        InputError: no parameter is trainable, or they differ in dtype or device.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        trainable = [(name, p) for name, p in parameters if p.requires_grad and p.numel()]
        kinds = sorted({f"{p.dtype} on {p.device}" for _, p in trainable})
        if len(kinds) != 1:
            given = " and ".join(kinds) or "none"
            raise InputError(f"parameters: {given}; trainable parameters of one dtype on one device are needed")
        self.names = [name for name, _ in trainable]
        self.parameters = [p for _, p in trainable]
        self.sizes = [p.numel() for p in self.parameters]
        self.vector = self.parameters[0].detach().new_empty(sum(self.sizes))
        starts = [0, *accumulate(self.sizes)]
        self._places = [  # each tensor's entries in the order that they have in memory, such as channels last
            (p.shape, torch.empty_like(p, device="meta").stride(), start)
            for p, start in zip(self.parameters, starts, strict=False)
        ]
        for parameter, view in zip(self.parameters, self.views(self.vector), strict=True):
            view.copy_(parameter.detach())
        self.bind(self.vector)

    @property
    def num_parameters(self) -> int:
        return self.vector.numel()

    def views(self, vector: Tensor) -> list[Tensor]:
        """The slices of `vector` (d,), each in its parameter's shape and without a copy."""
        origin = vector.storage_offset()
        return [vector.as_strided(shape, stride, origin + start) for shape, stride, start in self._places]

    def bind(self, vector: Tensor) -> None:
        """Let the parameters be views of `vector` (d,)."""
        for parameter, view in zip(self.parameters, self.views(vector), strict=True):
            parameter.data = view

    @contextlib.contextmanager
    def bound_to(self, vector: Tensor) -> Iterator[None]:
        """Let the parameters be views of another vector (d,) meanwhile."""
        if vector is self.vector:
            yield
            return
        self.bind(vector)
        try:
            yield
        finally:
            self.bind(self.vector)

    def set_gradient(self, direction: Tensor) -> None:
        """Let `p.grad` be the slices of `direction` (d,)."""
        for parameter, view in zip(self.parameters, self.views(direction), strict=True):
            parameter.grad = view

    def segments(self, granularity: Granularity) -> tuple[int, ...]:
        """The sizes of the parts that a compressor treats apart: every tensor, or the model as one.

        A tensor of several dimensions is a matrix, with a row an output.
        """
        if granularity == "model":
            return (self.num_parameters,)
        return tuple(
            MatrixSize(size, shape[0]) if len(shape) > 1 and stride[0] * shape[0] == size else size
            for size, (shape, stride, _) in zip(self.sizes, self._places, strict=True)
        )
