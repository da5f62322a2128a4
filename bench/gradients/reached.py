"""What a module's attributes lead to, and a step may change besides parameters and buffers: containers, arrays,
tensors, random number generators, and objects of a user's own classes, with what these hold.

Metrics are looked into, too; objects of Lightning and other libraries are not.
"""

import collections
import queue
import random
import sys
import weakref
from argparse import Namespace
from array import array
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from functools import cache, partial
from io import IOBase
from itertools import islice
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
from torchmetrics import Metric

from bench.gradients.cells import (
    Bulk,
    Captured,
    Cell,
    Draws,
    Elements,
    Entries,
    Fields,
    Items,
    Members,
    Ordered,
    Packed,
    Queue,
    Slots,
    slots_of,
)

MOST_BYTES = 2**26
"""Larger arrays and tensors are not copied, so that workers share them."""
MOST_CELLS = 4096
"""A container of more entries is a cell, but its entries are not searched for further ones."""
FEW_CELLS = 256
"""Where there are more, new ones are looked for in thorough rounds only."""

_STRUCTURE = vars(nn.Module()).keys() - {"training"}  # attributes in which PyTorch keeps a module together
_HOLDING = (Slots, Ordered, Items, Queue)
_HOOKS = {name for name in _STRUCTURE if name.endswith("_hooks")}
_LIBRARIES = sys.stdlib_module_names | {
    *("torch", "lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning", "torchmetrics", "numpy"),
    *("hydra", "omegaconf", "wandb"),
}


class Reached:
    """All cells that a module's attributes lead to.

    Args:
        module: whose attributes.

    Attributes:
        others: further dicts and objects, such as an optimizer's groups.
        cells: by identity of their targets.
        iterators: the names of attributes that are iterators or the like, which cannot be read or rewound.
        too_many: whether there are more than can be looked at.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.others: list[Any] = []
        self.cells: dict[int, Cell] = {}
        self.iterators: set[str] = set()
        self.too_many = False
        self.find()

    @property
    def num_cells(self) -> int:
        """How many there are besides the attributes of the module's tensors, which are marks as a rule."""
        return len(self.cells) - self._num_marks

    def find(self, thorough: bool = False) -> None:
        """Find the cells anew: those that are still there stay what they are. `thorough`: also tensors without any
        attribute, to which a step may give the first."""
        known, self.cells, self.iterators = self.cells, {}, set()
        modules, tensors = list(self.module.modules()), [*self.module.parameters(), *self.module.buffers()]
        self._registered = set(map(id, (*modules, *tensors)))
        waiting: list[tuple[str, Any, bool]] = []  # name, value, whether it is part of a metric
        for m in modules:
            is_metric = isinstance(m, Metric)
            self._add(vars(m), Slots, known, type(m).__name__, is_metric)
            for name, value in vars(m).items():
                if name not in _STRUCTURE:
                    waiting.append((name, value, is_metric))
                elif value and name in _HOOKS:
                    waiting += [(name, hook, is_metric) for hook in value.values()]
        before = len(self.cells)
        for tensor in tensors:
            if thorough or vars(tensor):
                self._add_own(tensor, "attributes of a tensor", known, False, waiting)
            for hooks in (tensor._backward_hooks, getattr(tensor, "_post_accumulate_grad_hooks", None)):
                waiting += [("hooks of a tensor", hook, False) for hook in (hooks or {}).values()]
        self._num_marks = len(self.cells) - before
        for other in self.others:
            content = other if isinstance(other, dict) else vars(other)
            self._add(content, Slots, known, type(other).__name__, False)
            waiting += [(str(name), value, False) for name, value in content.items()]
        self._look(waiting, set(self._registered), known)

    def cells_of(self, value: Any) -> list[Cell]:
        """New cells of a value and all that it leads to."""
        found = Reached.__new__(Reached)
        found.cells, found.iterators, found.too_many = {}, set(), False
        found._look([("", value, False)], set(self._registered), {})
        return list(found.cells.values())

    def _look(self, waiting: list[tuple[str, Any, bool]], seen: set[int], known: dict[int, Cell]) -> None:
        most = len(self.cells) + MOST_CELLS
        while waiting:
            name, value, shared = waiting.pop()
            kind = _kind(type(value))
            if kind is None or id(value) in seen:
                continue
            if self.too_many or len(self.cells) >= most:
                self.too_many = True
                return
            seen.add(id(value))
            if kind is Iterator:
                self.iterators.add(name)
            elif kind in _LEADING:
                waiting += [(name, each, shared) for each in _LEADING[kind](value)]
            elif kind is tuple:
                waiting += [(name, each, shared) for each in self._entries(value)]
            elif kind is object:
                if isinstance(value, torch.optim.Optimizer) and _trains(value, seen):
                    continue  # the Trainer's, which steps do not step
                shared = shared or isinstance(value, Metric)
                self._add(vars(value), Slots, known, name, shared)
                waiting += [(str(key), each, shared) for key, each in vars(value).items()]
            elif kind is Captured:
                self._add(value, Captured, known, name, shared)
                waiting.append((name, self.cells[id(value)].value, shared))
            elif kind is Fields:
                self._add(value, Fields, known, name, shared)
                waiting += [(key, each, shared) for key, each in self.cells[id(value)].value.items()]
            elif _is_watched(value):
                large = kind in (Entries, Elements) and value.itemsize * _num_entries(value) > MOST_BYTES
                self._add(value, Bulk if large else kind, known, name, shared)
                self._add_own(value, name, known, shared, waiting)
                if kind in _HOLDING or (kind is Elements and value.dtype == object):
                    held = value.values() if isinstance(value, dict) else value
                    waiting += [(name, each, shared) for each in self._entries(getattr(held, "flat", held))]

    def _entries(self, held: Collection[Any]) -> Collection[Any]:
        """Those of a container's entries that lead to cells."""
        kinds = {cls for cls in {*map(type, islice(held, MOST_CELLS))} if _kind(cls) is not None}
        if not kinds:
            return ()
        if len(held) > MOST_CELLS:
            self.too_many = True
            return ()
        return [each for each in held if type(each) in kinds]

    def _add_own(
        self, value: Any, name: str, known: dict[int, Cell], shared: bool, waiting: list[tuple[str, Any, bool]]
    ) -> None:
        """Add the attributes of a container or tensor, if it has any."""
        if (own := getattr(value, "__dict__", None)) is not None:
            self._add(own, Slots, known, name, shared)
            waiting += [(str(key), each, shared) for key, each in own.items()]

    def _add(self, target: Any, cell: type[Cell], known: dict[int, Cell], name: str, shared: bool) -> None:
        found = known.get(id(target))
        self.cells[id(target)] = found if found and found.target is target else cell(target, name, shared)


_LEADING: dict[Any, Callable[[Any], Collection[Any]]] = {
    MethodType: lambda method: (method.__self__, method.__func__),
    FunctionType: lambda function: (
        vars(function),
        function.__defaults__,
        function.__kwdefaults__,
        *(function.__closure__ or ()),
    ),
    partial: lambda call: (call.func, call.args, call.keywords),
    memoryview: lambda view: (_viewed(view),),
    weakref.ref: lambda reference: (reference(),),
    queue.Queue: lambda waiting: (waiting.queue,),
}
"""What lies behind objects that only lead to others."""


@cache
def _kind(cls: type) -> Any:
    """The cell of a class's instances; how they are looked into where they are none; None where they are not."""
    for base, kind in (
        (collections.OrderedDict, Ordered),
        (dict, Slots),
        (collections.deque, Queue),
        (list, Items),
        ((array, bytearray), Packed),
        (set, Members),
        (tuple, tuple),
        (Tensor, Entries),
        (np.ndarray, Elements),
        (random.SystemRandom, None),
        ((torch.Generator, np.random.Generator, np.random.RandomState, random.Random), Draws),
        (
            (
                *(nn.Module, SimpleNamespace, Namespace, torch.optim.Optimizer),
                *(collections.UserList, collections.UserDict, collections.ChainMap),
            ),
            object,
        ),
        (CellType, Captured),
        *((leading, leading) for leading in _LEADING),
        ((IOBase, type, Enum), None),
        ((Iterator, queue.SimpleQueue), Iterator),
    ):
        if issubclass(cls, base):
            return kind
    if not is_a_users(cls):
        return None
    return object if cls.__dictoffset__ else Fields if slots_of(cls) else None


def is_a_users(cls: type) -> bool:
    """Whether a class is none of Python's or of a library's on which training rests."""
    return cls.__module__.partition(".")[0] not in _LIBRARIES


def _viewed(view: memoryview) -> Any:
    try:
        return view.obj
    except ValueError:  # released
        return None


def _num_entries(value: Any) -> int:
    return value.size if isinstance(value, np.ndarray) else value.numel()


def _trains(optimizer: torch.optim.Optimizer, parameters: Collection[int]) -> bool:
    return any(id(p) in parameters for group in optimizer.param_groups for p in group["params"])


def _is_watched(value: Any) -> bool:
    """Whether a tensor or array can be read and written: not where it has a graph, is vmap's or a file."""
    if isinstance(value, Tensor):
        return value.is_leaf and not (is_functorch_wrapped_tensor(value) or value.is_inference() or value.is_meta)
    if isinstance(value, np.ndarray):
        has_fields_of_objects = value.dtype.hasobject and value.dtype != object
        return value.flags.writeable and not has_fields_of_objects and not isinstance(value, np.memmap)
    if isinstance(value, array | bytearray):
        return len(memoryview(value).cast("B")) <= MOST_BYTES
    return value is not torch.default_generator
