"""What a module's attributes lead to, and a step may change besides parameters and buffers: containers, arrays,
tensors, random number generators, and objects of a user's own classes, with what these hold.

Each is a cell, which can be read and written. Metrics are read, too; objects of Lightning and other libraries are not.
"""

import collections
import pickle
import random
import sys
from abc import ABC, abstractmethod
from argparse import Namespace
from array import array
from collections.abc import Collection, Iterator
from enum import Enum
from functools import cache
from io import IOBase
from operator import eq, is_
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
from torchmetrics import Metric

from bench.gradients.marks import Mark, clone, equal, sample

NUM_LOOKED_INTO = 64
"""A container of more entries is a cell, but its entries are not searched for further ones."""
NUM_COMPARED = 2**13
"""Of a container of more entries that steps have not changed so far, some are compared; all in thorough rounds."""
NUM_ELEMENTS = 2**16
"""The same for arrays."""
MOST_BYTES = 2**26
"""Larger arrays and tensors are not copied, so that workers share them."""
MOST_CELLS = 4096
FEW_CELLS = 256
"""Where there are more, those that did not change in a thorough round are left out until the next."""

_STRUCTURE = vars(nn.Module()).keys() - {"training"}  # attributes in which PyTorch keeps a module together
_LIBRARIES = sys.stdlib_module_names | {
    *("torch", "lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning", "torchmetrics", "numpy"),
    *("hydra", "omegaconf", "wandb"),
}


class Cell(ABC):
    """Something that can change in place.

    Args:
        target: it.
        name: of the attribute that leads to it.
        shared: whether all workers use it together, as they do metrics.

    Attributes:
        value: a copy of its content, which nobody changes, so that equal contents in a row are one object.
        changes: whether steps have changed it.
    """

    def __init__(self, target: Any, name: str = "", shared: bool = False) -> None:
        self.target = target
        self.name = name
        self.shared = shared
        self.changes = False
        self.value = self.read()

    @abstractmethod
    def read(self) -> Any:
        """A copy of its content."""

    @abstractmethod
    def is_still(self, value: Any, thorough: bool) -> bool:
        """Whether its content is what `read` returned last. `thorough`: compare all entries of large ones."""

    @abstractmethod
    def write(self, value: Any) -> None:
        """Write a content that `read` returned."""

    def now(self, thorough: bool = False) -> Any:
        """Its content; the same object as long as it does not change."""
        if not self.is_still(self.value, thorough or self.changes):
            self.value = self.read()
        return self.value

    def put(self, value: Any) -> None:
        """Write a content that `now` returned."""
        if self.now() is not value:
            self.write(value)
            self.value = value


class Slots(Cell):
    """A dict, such as the attributes of an object."""

    def read(self) -> dict[Any, Any]:
        return dict(self.target)

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.target
        if len(now) != len(value):
            return False
        if len(now) > NUM_COMPARED and not thorough:
            last = next(reversed(now))
            return last in value and now[last] is value[last]
        return all(map(is_, now.values(), value.values())) and all(map(is_, now, value))

    def write(self, value: Any) -> None:
        dict.clear(self.target)
        dict.update(self.target, value)


class Ordered(Slots):
    """An OrderedDict, whose order is part of its content."""

    def write(self, value: Any) -> None:
        self.target.clear()
        self.target.update(value)


class Fields(Cell):
    """An object of a class with `__slots__`."""

    def read(self) -> dict[str, Any]:
        return {name: getattr(self.target, name) for name in _slots(type(self.target)) if hasattr(self.target, name)}

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.read()
        return now.keys() == value.keys() and all(each is value[name] for name, each in now.items())

    def write(self, value: Any) -> None:
        for name in _slots(type(self.target)):
            if name in value:
                object.__setattr__(self.target, name, value[name])
            elif hasattr(self.target, name):
                object.__delattr__(self.target, name)


class Items(Cell):
    """A list, a deque or an array of Python's."""

    def read(self) -> list[Any]:
        return list(self.target)

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.target
        if len(now) != len(value):
            return False
        if len(now) > NUM_COMPARED and not thorough:
            return now[0] is value[0] and now[-1] is value[-1]
        return all(map(eq if isinstance(now, array) else is_, now, value))

    def write(self, value: Any) -> None:
        del self.target[:]
        self.target.extend(value)


class Queue(Items):
    """A deque."""

    def write(self, value: Any) -> None:
        self.target.clear()
        self.target.extend(value)


class Members(Cell):
    """A set."""

    def read(self) -> set[Any]:
        return set(self.target)

    def is_still(self, value: Any, thorough: bool) -> bool:
        return len(self.target) == len(value) and (self.target == value if len(value) <= NUM_COMPARED else not thorough)

    def write(self, value: Any) -> None:
        self.target.clear()
        self.target.update(value)


class Entries(Cell):
    """A tensor that is no parameter or buffer of the module."""

    def read(self) -> Tensor | None:
        self.mark = Mark.of(self.target)
        return clone(self.target)

    def is_still(self, value: Any, thorough: bool) -> bool:
        if not thorough:
            return not self.mark.differs(self.target)
        return equal(self.target, value)

    def write(self, value: Any) -> None:
        with torch.no_grad():
            if self.target.shape == value.shape:
                self.target.copy_(value)
            else:
                self.target.data = value.clone()
        self.mark = Mark.of(self.target)


class Elements(Cell):
    """A NumPy array."""

    def read(self) -> Any:
        return self.target.copy()

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.target
        if now.size > NUM_ELEMENTS and not thorough:
            step = now.size // NUM_ELEMENTS
            now, value = now.reshape(-1)[::step], value.reshape(-1)[::step]
        return bool(np.array_equal(now, value, equal_nan=now.dtype.kind in "fc"))

    def write(self, value: Any) -> None:
        self.target[...] = value


class Bulk(Cell):
    """An array or tensor that is too large to be copied."""

    def read(self) -> Mark:
        return Mark.of(self._tensor())

    def is_still(self, value: Any, thorough: bool) -> bool:
        return equal(sample(self._tensor()), value.sample)

    def write(self, value: Any) -> None:
        """It stays as it is."""

    def _tensor(self) -> Tensor:
        return self.target if isinstance(self.target, Tensor) else torch.from_numpy(self.target)


class Draws(Cell):
    """A random number generator of PyTorch, NumPy or Python."""

    def read(self) -> Any:
        if isinstance(self.target, torch.Generator):
            return self.target.get_state()
        if isinstance(self.target, np.random.Generator):
            return pickle.dumps(self.target.bit_generator.state)
        if isinstance(self.target, np.random.RandomState):
            return pickle.dumps(self.target.get_state())
        return self.target.getstate()

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.read()
        return torch.equal(now, value) if isinstance(now, Tensor) else now == value

    def write(self, value: Any) -> None:
        if isinstance(self.target, torch.Generator):
            self.target.set_state(value)
        elif isinstance(self.target, np.random.Generator):
            self.target.bit_generator.state = pickle.loads(value)
        elif isinstance(self.target, np.random.RandomState):
            self.target.set_state(pickle.loads(value))
        else:
            self.target.setstate(value)


class Reached:
    """All cells that a module's attributes lead to.

    Args:
        module: whose attributes.

    Attributes:
        others: further dicts and objects, such as an optimizer's groups.
        cells: by identity of their targets.
        iterators: the names of attributes that are iterators, which cannot be read or rewound.
        too_many: whether there are more than can be looked at.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.others: list[Any] = []
        self.cells: dict[int, Cell] = {}
        self.iterators: set[str] = set()
        self.too_many = False
        self.find()

    def find(self) -> None:
        """Find the cells anew: those that are still there stay what they are."""
        known, self.cells = self.cells, {}
        modules = list(self.module.modules())
        self._registered = set(map(id, (*modules, *self.module.parameters(), *self.module.buffers())))
        waiting: list[tuple[str, Any, bool]] = []  # name, value, whether it is part of a metric
        for m in modules:
            is_metric = isinstance(m, Metric)
            self._add(vars(m), Slots, known, type(m).__name__, is_metric)
            waiting += [(name, value, is_metric) for name, value in vars(m).items() if name not in _STRUCTURE]
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
            elif kind is MethodType:
                waiting.append((name, value.__self__, shared))
            elif kind is tuple:
                waiting += [(name, each, shared) for each in value[:NUM_LOOKED_INTO]]
            elif kind is object:
                if isinstance(value, torch.optim.Optimizer) and _trains(value, seen):
                    continue  # the Trainer's, which steps do not step
                shared = shared or isinstance(value, Metric)
                self._add(vars(value), Slots, known, name, shared)
                waiting += [(str(key), each, shared) for key, each in vars(value).items()]
            elif kind is Fields:
                self._add(value, Fields, known, name, shared)
                waiting += [(key, each, shared) for key, each in self.cells[id(value)].value.items()]
            elif _is_watched(value):
                large = kind in (Entries, Elements) and value.itemsize * _num_entries(value) > MOST_BYTES
                self._add(value, Bulk if large else kind, known, name, shared)
                if kind in (Slots, Ordered, Items, Queue) and len(value) <= NUM_LOOKED_INTO:
                    waiting += [(name, each, shared) for each in (value.values() if isinstance(value, dict) else value)]

    def _add(self, target: Any, cell: type[Cell], known: dict[int, Cell], name: str, shared: bool) -> None:
        found = known.get(id(target))
        self.cells[id(target)] = found if found and found.target is target else cell(target, name, shared)


@cache
def _kind(cls: type) -> Any:
    """The cell of a class's instances; how they are looked into where they are none; None where they are not."""
    for base, kind in (
        (collections.OrderedDict, Ordered),
        (dict, Slots),
        (collections.deque, Queue),
        ((list, array), Items),
        (set, Members),
        (tuple, tuple),
        (Tensor, Entries),
        (np.ndarray, Elements),
        (random.SystemRandom, None),
        ((torch.Generator, np.random.Generator, np.random.RandomState, random.Random), Draws),
        (
            (nn.Module, SimpleNamespace, Namespace, torch.optim.Optimizer, collections.UserList, collections.UserDict),
            object,
        ),
        (MethodType, MethodType),
        ((IOBase, type, Enum), None),
        (Iterator, Iterator),
    ):
        if issubclass(cls, base):
            return kind
    if not is_a_users(cls):
        return None
    return object if cls.__dictoffset__ else Fields if _slots(cls) else None


@cache
def _slots(cls: type) -> tuple[str, ...]:
    """The names in a class's `__slots__` and in those of its bases."""
    declared = (vars(owner).get("__slots__", ()) for owner in cls.__mro__)
    return tuple(
        name
        for names in declared
        for name in ((names,) if isinstance(names, str) else names)
        if name not in ("__dict__", "__weakref__")
    )


def is_a_users(cls: type) -> bool:
    """Whether a class is none of Python's or of a library's on which training rests."""
    return cls.__module__.partition(".")[0] not in _LIBRARIES


def _num_entries(value: Any) -> int:
    return value.size if isinstance(value, np.ndarray) else value.numel()


def _trains(optimizer: torch.optim.Optimizer, parameters: Collection[int]) -> bool:
    return any(id(p) in parameters for group in optimizer.param_groups for p in group["params"])


def _is_watched(value: Any) -> bool:
    """Whether a tensor or array can be read and written: not where it has a graph, is vmap's or a file."""
    if isinstance(value, Tensor):
        return value.is_leaf and not (is_batchedtensor(value) or value.is_inference() or value.is_meta)
    if isinstance(value, np.ndarray):
        return value.flags.writeable and not value.dtype.hasobject and not isinstance(value, np.memmap)
    return value is not torch.default_generator
