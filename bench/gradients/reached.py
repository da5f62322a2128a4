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
from collections.abc import Iterator
from functools import cache
from io import IOBase
from operator import eq, is_
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
from torchmetrics import Metric

from bench.gradients.marks import Mark, clone, equal

NUM_LOOKED_INTO = 64
"""A container of more entries is a cell, but its entries are not searched for further ones."""
NUM_COMPARED = 1024
"""Of a container or an array of more entries, some are compared; all in thorough rounds."""

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
    """

    def __init__(self, target: Any, name: str = "", shared: bool = False) -> None:
        self.target = target
        self.name = name
        self.shared = shared
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
        if not self.is_still(self.value, thorough):
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
        return all(map(is_, now.values(), value.values())) and all(map(eq, now, value))

    def write(self, value: Any) -> None:
        dict.clear(self.target)
        dict.update(self.target, value)


class Items(Cell):
    """A list or a deque."""

    def read(self) -> list[Any]:
        return list(self.target)

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.target
        if len(now) != len(value):
            return False
        if len(now) > NUM_COMPARED and not thorough:
            return now[0] is value[0] and now[-1] is value[-1]
        return all(map(is_, now, value))

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
            self.target.copy_(value)
        self.mark = Mark.of(self.target)


class Elements(Cell):
    """A NumPy array."""

    def read(self) -> Any:
        return self.target.copy()

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.target
        if now.size > NUM_COMPARED and not thorough:
            step = now.size // NUM_COMPARED
            now, value = now.reshape(-1)[::step], value.reshape(-1)[::step]
        return bool(np.array_equal(now, value, equal_nan=now.dtype.kind in "fc"))

    def write(self, value: Any) -> None:
        self.target[...] = value


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
        cells: by identity of their targets.
        iterators: the names of attributes that are iterators, which cannot be read or rewound.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.cells: dict[int, Cell] = {}
        self.iterators: set[str] = set()
        self.find()

    def find(self) -> None:
        """Find the cells anew: those that are still there stay what they are."""
        known, self.cells = self.cells, {}
        seen = {id(tensor) for tensor in (*self.module.parameters(), *self.module.buffers())}
        waiting: list[tuple[str, Any, bool]] = []  # name, value, whether it is part of a metric
        for m in self.module.modules():
            seen.add(id(m))
            is_metric = isinstance(m, Metric)
            self._add(vars(m), Slots, known, type(m).__name__, is_metric)
            waiting += [(name, value, is_metric) for name, value in vars(m).items() if name not in _STRUCTURE]
        while waiting:
            name, value, shared = waiting.pop()
            kind = _kind(type(value))
            if kind is None or id(value) in seen:
                continue
            seen.add(id(value))
            if kind is Iterator:
                self.iterators.add(name)
            elif kind is object:
                shared = shared or isinstance(value, Metric)
                self._add(vars(value), Slots, known, name, shared)
                waiting += [(str(key), each, shared) for key, each in vars(value).items()]
            elif kind is tuple:
                waiting += [(name, each, shared) for each in value[:NUM_LOOKED_INTO]]
            elif _is_watched(value):
                self._add(value, kind, known, name, shared)
                if kind in (Slots, Items) and len(value) <= NUM_LOOKED_INTO:
                    waiting += [(name, each, shared) for each in (value.values() if kind is Slots else value)]

    def _add(self, target: Any, cell: type[Cell], known: dict[int, Cell], name: str, shared: bool) -> None:
        found = known.get(id(target))
        self.cells[id(target)] = found if found and found.target is target else cell(target, name, shared)


@cache
def _kind(cls: type) -> Any:
    """The cell of a class's instances; tuple or object where they are only looked into; None where they are not."""
    for base, kind in (
        (dict, Slots),
        ((list, collections.deque), Items),
        (set, Members),
        (tuple, tuple),
        (Tensor, Entries),
        (np.ndarray, Elements),
        ((torch.Generator, np.random.Generator, np.random.RandomState, random.Random), Draws),
        ((nn.Module, SimpleNamespace, Namespace), object),
        ((IOBase, type), None),
        (Iterator, Iterator),
    ):
        if issubclass(cls, base):
            return kind
    return object if hasattr(cls, "__dict__") and cls.__dictoffset__ and is_a_users(cls) else None


def is_a_users(cls: type) -> bool:
    """Whether a class is none of Python's or of a library's on which training rests."""
    return cls.__module__.partition(".")[0] not in _LIBRARIES


def _is_watched(value: Any) -> bool:
    """Whether a tensor or array can be read and written: not where it has a graph, is vmap's or a file."""
    if isinstance(value, Tensor):
        return value.is_leaf and not is_batchedtensor(value) and value.device.type != "meta"
    if isinstance(value, np.ndarray):
        return value.flags.writeable and not value.dtype.hasobject and not isinstance(value, np.memmap)
    return value is not torch.default_generator
