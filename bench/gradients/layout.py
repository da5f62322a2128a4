"""Parameters as one flat vector.

The trainable parameters of a module become views of a single vector of shape (d,), in the order of
`module.named_parameters()`; the entries of each keep their order in memory. Reading all parameters, restoring old ones
or handing a direction to the optimizer then takes at most one copy.
"""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Literal, Self

import torch
from torch import Tensor, nn

from bench.errors import InputError

Granularity = Literal["tensor", "model"]


class TensorSize(int):
    """The number of entries of a segment that is a tensor.

    Attributes:
        num_rows: of a matrix, stored row by row; 1 if it is none.
        name: the parameter's, as in `module.named_parameters()`.
    """

    num_rows: int
    name: str

    def __new__(cls, size: int, num_rows: int = 1, name: str = "") -> Self:
        self = super().__new__(cls, size)
        self.num_rows, self.name = num_rows, name
        return self

    def __getnewargs__(self) -> tuple[int, int, str]:  # pyright: ignore[reportIncompatibleMethodOverride]  copying
        return int(self), self.num_rows, self.name


def num_rows_of(size: int) -> int:
    """The number of rows of a segment of this size; 1 if it is not a matrix."""
    return size.num_rows if isinstance(size, TensorSize) else 1


def name_of(size: int) -> str:
    """The name of the parameter that a segment of this size is; empty if it is none, as of the whole model."""
    return size.name if isinstance(size, TensorSize) else ""


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"


class Layout:
    """The flat vector of a module's trainable parameters, and where each tensor lies in it.

    Args:
        parameters: (name, parameter) pairs. The storage of each becomes a slice of `vector`; frozen or empty ones stay
            unchanged.

    Attributes:
        names, parameters, sizes: of each tensor in the vector, in its order.
        vector: (d,).

    Raises:
        InputError: no parameter is trainable, one is sparse, nested or complex, or they differ in dtype or device.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        trainable = [(name, p) for name, p in parameters if p.requires_grad and p.numel()]
        for name, p in trainable:
            if p.is_nested or p.layout is not torch.strided:
                told = "nested" if p.is_nested else str(p.layout)
                raise InputError(f"parameters: {name} is {told}; dense trainable parameters are needed")
            if p.is_complex():
                raise InputError(
                    f"parameters: {name} is of {p.dtype}; real numbers are needed, such as torch.view_as_real makes"
                )
        kinds = sorted({f"{p.dtype} on {p.device}" for _, p in trainable})
        if len(kinds) != 1:
            given = " and ".join(kinds) or "none"
            raise InputError(f"parameters: {given}; trainable parameters of one dtype on one device are needed")
        self.names = [name for name, _ in trainable]
        self.parameters = [p for _, p in trainable]
        self.sizes = [p.numel() for p in self.parameters]
        self.vector = self.parameters[0].detach().new_empty(sum(self.sizes))
        starts = [0, *accumulate(self.sizes)]
        self._places = [  # each tensor in its own memory order, such as channels last
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
        """Views of the slices of `vector` (d,), each in its parameter's shape."""
        origin = vector.storage_offset()
        return [vector.as_strided(shape, stride, origin + start) for shape, stride, start in self._places]

    def bind(self, vector: Tensor) -> None:
        """Make the parameters views of `vector` (d,)."""
        for parameter, view in zip(self.parameters, self.views(vector), strict=True):
            parameter.data = view

    def bind_again(self) -> None:
        """Take the values of parameters whose `.data` other code has assigned, as when it clamps weights, and make them
        views of `vector` again.

        Raises:
            InputError: one has another shape, dtype or device than before.
        """
        origin, itemsize = self.vector.data_ptr(), self.vector.itemsize
        for slot, (parameter, (_, stride, start)) in enumerate(zip(self.parameters, self._places, strict=True)):
            if parameter.data_ptr() == origin + start * itemsize and parameter.stride() == stride:
                continue
            view = self.views(self.vector)[slot]
            if (now := _kind(parameter)) != (needed := _kind(view)):
                raise InputError(f"parameters: {self.names[slot]} became {now} during training; {needed} is needed")
            view.copy_(parameter.detach())
            parameter.data = view

    @contextlib.contextmanager
    def bound_to(self, vector: Tensor) -> Iterator[None]:
        """Make the parameters views of another vector (d,) inside the block."""
        if vector is self.vector:
            yield
            return
        self.bind(vector)
        try:
            yield
        finally:
            self.bind(self.vector)

    def set_gradient(self, direction: Tensor) -> None:
        """Set each `p.grad` to its slice of `direction` (d,)."""
        for parameter, view in zip(self.parameters, self.views(direction), strict=True):
            parameter.grad = view

    def segments(self, granularity: Granularity) -> tuple[int, ...]:
        """The sizes of the parts that a compressor treats separately: every tensor, or the whole model.

        A tensor of several dimensions counts as a matrix with one row per output.
        """
        if granularity == "model":
            return (self.num_parameters,)
        return tuple(
            TensorSize(size, shape[0] if len(shape) > 1 and stride[0] * shape[0] == size else 1, name)
            for name, size, (shape, stride, _) in zip(self.names, self.sizes, self._places, strict=True)
        )
