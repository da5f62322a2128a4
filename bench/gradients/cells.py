"""What can change in place, such as a list or a random number generator, as a cell that is read and written."""

import pickle
from abc import ABC, abstractmethod
from functools import cache
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gradients.marks import Mark, clone, equal, sample

NUM_COMPARED = 2**13
"""Of a container of more entries that steps have not changed so far, some are compared; all in thorough rounds."""
NUM_ELEMENTS = 2**16
"""The same for arrays."""
UNASSIGNED = object()


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
        return {name: getattr(self.target, name) for name in slots_of(type(self.target)) if hasattr(self.target, name)}

    def is_still(self, value: Any, thorough: bool) -> bool:
        now = self.read()
        return now.keys() == value.keys() and all(each is value[name] for name, each in now.items())

    def write(self, value: Any) -> None:
        for name in slots_of(type(self.target)):
            if name in value:
                object.__setattr__(self.target, name, value[name])
            elif hasattr(self.target, name):
                object.__delattr__(self.target, name)


class Items(Cell):
    """A list."""

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
        del self.target[:]
        self.target.extend(value)


class Queue(Items):
    """A deque."""

    def write(self, value: Any) -> None:
        self.target.clear()
        self.target.extend(value)


class Packed(Cell):
    """An array or bytes of Python's."""

    def read(self) -> Any:
        return self.target[:]

    def is_still(self, value: Any, thorough: bool) -> bool:
        return memoryview(self.target).cast("B") == memoryview(value).cast("B")

    def write(self, value: Any) -> None:
        if len(value) == len(self.target):  # others may have views of its memory, which must not be resized
            memoryview(self.target).cast("B")[:] = memoryview(value).cast("B")
        else:
            self.target[:] = value


class Members(Cell):
    """A set."""

    def read(self) -> set[Any]:
        return set(self.target)

    def is_still(self, value: Any, thorough: bool) -> bool:
        if len(self.target) != len(value):
            return False
        return self.target == value if thorough or len(value) <= NUM_COMPARED else True

    def write(self, value: Any) -> None:
        self.target.clear()
        self.target.update(value)


class Captured(Cell):
    """A variable of an enclosing function, which an inner one may assign."""

    def read(self) -> Any:
        try:
            return self.target.cell_contents
        except ValueError:  # not assigned yet
            return UNASSIGNED

    def is_still(self, value: Any, thorough: bool) -> bool:
        return self.read() is value

    def write(self, value: Any) -> None:
        if value is UNASSIGNED:
            del self.target.cell_contents
        else:
            self.target.cell_contents = value


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
        most = NUM_COMPARED if now.dtype.hasobject else NUM_ELEMENTS
        if now.size > most and not thorough:
            step = now.size // most
            now, value = now.flat[::step], value.flat[::step]  # which copies these alone
        if now.dtype.hasobject:
            return all(map(is_, now.flat, value.flat))
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


@cache
def slots_of(cls: type) -> tuple[str, ...]:
    """The names in a class's `__slots__` and in those of its bases."""
    declared = (vars(owner).get("__slots__", ()) for owner in cls.__mro__)
    return tuple(
        name
        for names in declared
        for name in ((names,) if isinstance(names, str) else names)
        if name not in ("__dict__", "__weakref__")
    )
