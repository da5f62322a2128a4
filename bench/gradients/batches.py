"""Whose samples are whose: batches dealt to workers."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from bench.errors import InputError


class Dealt(NamedTuple):
    """A batch that is dealt already: every tensor in `tree` is (L, B, …), a row a worker of this process."""

    tree: Any


class Served(NamedTuple):
    """An evaluation batch that is served by some of the workers: with the mean of their buffers, not of everyone's."""

    tree: Any
    ranks: slice


@runtime_checkable
class WholeEpoch(Protocol):
    """A loader that can be read once more, from the beginning of its epoch, without being moved on."""

    def whole_epoch(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Entries:
    """One sequence of entries a worker, such as its strings."""

    by_worker: list[Any]


@dataclass(frozen=True)
class Same:
    """What every worker gets as it is, such as a number."""

    value: Any


Column = Tensor | Entries | Same
"""A part of all workers' batches; a tensor is (R, B, …)."""

Rebuild = Callable[[Iterator[Any]], Any]
"""One worker's parts, in the order of the columns -> its batch."""


class Shards:
    """The batches of R workers. Whoever looks gets a copy, for a step may change what it is given.

    Args:
        num_workers: R.
        columns: what the batches are made of.
        rebuild: puts one worker's parts together as they were in the loader's batch.
    """

    def __init__(self, num_workers: int, columns: Sequence[Column], rebuild: Rebuild) -> None:
        self.num_workers = num_workers
        self.columns = columns
        self.rebuild = rebuild

    def of(self, row: int) -> Any:
        """One worker's batch. Its tensors begin memory of their own, as they do in a process of its own."""
        return self.rebuild(_copied(column, row) for column in self.columns)

    def pick(self, rows: Tensor) -> "Shards":
        """Those of some workers."""
        columns = [_picked(column, rows) for column in self.columns]
        return Shards(len(rows), columns, self.rebuild)

    def parts(self, num_parts: int) -> list["Shards"]:
        """Every worker's samples cut into so many equal parts, in their order."""
        return [
            Shards(self.num_workers, [_part(column, h, num_parts) for column in self.columns], self.rebuild)
            for h in range(num_parts)
        ]

    def stacked(self) -> Any:
        """All batches as one, of tensors (R, B, …).

        Raises:
            TypeError: they hold other things.
        """
        return self.rebuild(map(_stacked, self.columns))


def deal(
    batch: Any,
    num_workers: int,
    num_parts: int = 1,
    loaders: Any = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Shards | None:
    """A loader's batch -> those of L workers; None, with a warning, where it is too short.

    A `Dealt` batch passes as it is, and a single worker that cuts nothing takes any. Another one of N samples, N the
    length of its first tensor, is cut into L equal parts in its order, each a multiple of `num_parts`; samples at its
    end that are too many are left out, with a warning. Tensors, arrays, lists and tuples of N entries are cut;
    Mappings, dataclasses, named tuples, and lists and tuples of tensors are gone through; text, numbers and 0-dim
    tensors go to everyone.

    Args:
        batch: what the loader gave.
        num_workers: L.
        num_parts: how many parts each worker's samples are to be cut into later.
        loaders: a dict or list of loaders, of which each has its own N; None where there is one loader.
        warn: told of what is left out.

    Raises:
        InputError: something of another length than N, or of a kind that cannot be cut.
    """
    if isinstance(batch, Dealt):
        return as_shards(batch, num_parts)
    if num_workers == num_parts == 1:
        leaves, rebuild = _flatten(batch, "batch", None)
        return Shards(1, [Entries([leaf]) for leaf in leaves], rebuild)
    if loaders is None:
        return _cut(batch, "batch", num_workers, num_parts, warn)
    keys = list(loaders) if isinstance(loaders, Mapping) else list(range(len(loaders)))
    none_left = Shards(num_workers, [Same(None)], next)  # of a loader that is exhausted before the others
    shards = [
        none_left if batch[key] is None else _cut(batch[key], f"batch[{key!r}]", num_workers, num_parts, warn)
        for key in keys
    ]
    whole = [each for each in shards if each is not None]
    if len(whole) < len(shards):
        return None

    def rebuild(leaves: Iterator[Any], /) -> Any:
        values = [each.rebuild(leaves) for each in whole]
        return dict(zip(keys, values, strict=True)) if isinstance(loaders, Mapping) else values

    return Shards(num_workers, [column for each in whole for column in each.columns], rebuild)


def as_shards(dealt: Dealt, num_parts: int = 1) -> Shards:
    """A dealt batch as those of its workers. `num_parts`: as of `deal`.

    Raises:
        InputError: a worker's samples cannot be cut into so many equal parts.
    """
    leaves, spec = tree_flatten(dealt.tree)
    columns = [leaf if isinstance(leaf, Tensor) else Same(leaf) for leaf in leaves]
    shapes = [column.shape for column in columns if isinstance(column, Tensor)]
    for shape in shapes:
        if shape[1] % num_parts:
            raise InputError(
                f"batch: {shape[1]} samples a worker; a multiple of estimator.num_steps, {num_parts}, is needed"
            )
    return Shards(shapes[0][0], columns, lambda parts: tree_unflatten(list(parts), spec))


def _cut(batch: Any, name: str, num_workers: int, num_parts: int, warn: Callable[[str], None]) -> Shards | None:
    """Deal what one loader gave."""
    num_samples = next((len(leaf) for leaf in _walk(batch) if _has_rows(leaf)), None)
    if num_samples is None:  # no tensor
        num_samples = next((n for leaf in _walk(batch) if (n := _num_entries(leaf)) is not None), None)
    if num_samples is None:
        raise InputError(f"{name}: a {type(batch).__name__} without samples; a tensor or a list of them is needed")
    leaves, rebuild = _flatten(batch, name, num_samples)
    share = num_samples // (num_workers * num_parts) * num_parts
    each = f"{num_workers} workers" + (f" and {num_parts} steps" if num_parts > 1 else "")
    if share == 0:
        warn(f"{name} of {num_samples} samples is left out: too short for {each}")
        return None
    if left_out := num_samples - share * num_workers:
        warn(f"{name} of {num_samples} samples: {left_out} left out, so that {each} get {share} each")

    def column(leaf: Any) -> Column:
        if _has_rows(leaf):
            return leaf[: share * num_workers].unflatten(0, (num_workers, share))
        if _num_entries(leaf) is not None:
            return Entries([leaf[m * share : (m + 1) * share] for m in range(num_workers)])
        return Same(leaf)

    return Shards(num_workers, [column(leaf) for leaf in leaves], rebuild)


def _flatten(node: Any, name: str, num_samples: int | None) -> tuple[list[Any], Rebuild]:
    """The leaves of a batch, and how to put such leaves together again.

    Args:
        node: a batch, or something in one.
        name: of it, for messages.
        num_samples: how many entries its leaves must have; None if that is nobody's business.

    Raises:
        InputError: a leaf has another number, or cannot be cut.
    """
    as_it_is = num_samples is None and not isinstance(node, MutableMapping) and type(node) not in (list, tuple)
    if isinstance(node, Mapping) and not as_it_is:
        children = {f"{name}[{key!r}]": child for key, child in node.items()}
        return _gone_through(children, num_samples, lambda values: _filled(node, dict(zip(node, values, strict=True))))
    if is_dataclass(node) and not isinstance(node, type):
        keys = [field.name for field in fields(node)]
        children = {f"{name}.{key}": getattr(node, key) for key in keys}
        return _gone_through(
            children, num_samples, lambda values: _refilled(node, dict(zip(keys, values, strict=True)))
        )
    is_named = hasattr(node, "_make")
    if isinstance(node, list | tuple) and (is_named or not as_it_is) and (parts := _sequence(node, name, num_samples)):
        return parts
    if num_samples is not None:
        _refuse_leaf(node, name, num_samples)
    return [node], next


def _sequence(node: Any, name: str, num_samples: int | None) -> tuple[list[Any], Rebuild] | None:
    """A list or tuple gone through; None where it is N entries, such as strings, or the boxes of each picture.

    Raises:
        InputError: as of `_flatten`; or it could be either.
    """
    if not any(isinstance(child, Mapping) or is_dataclass(child) or _num_entries(child) is not None for child in node):
        return None
    children = {f"{name}[{i}]": child for i, child in enumerate(node)}
    make: Any = getattr(node, "_make", list if isinstance(node, list) else tuple)
    may_be_entries = num_samples == len(node) and not any(map(_has_rows, node)) and not hasattr(node, "_make")
    try:
        leaves, rebuild = _gone_through(children, num_samples, make)
    except InputError:
        if may_be_entries:
            return None
        raise
    if num_samples is not None and all(_num_entries(leaf) is None for leaf in leaves):
        return None
    if may_be_entries:
        raise InputError(
            f"{name}: {num_samples} entries that hold {num_samples} each; which of both are the samples cannot be "
            "told, another batch size is needed"
        )
    return leaves, rebuild


def _gone_through(
    children: Mapping[str, Any], num_samples: int | None, make: Callable[[list[Any]], Any]
) -> tuple[list[Any], Rebuild]:
    parts = [_flatten(child, name, num_samples) for name, child in children.items()]
    return [leaf for leaves, _ in parts for leaf in leaves], lambda leaves: make([into(leaves) for _, into in parts])


def _filled(mapping: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """A Mapping of the same type with these values."""
    if type(mapping) is dict or not isinstance(mapping, MutableMapping):
        return values
    filled: Any = copy.copy(mapping)
    for key, value in values.items():
        filled[key] = value
    return filled


def _refilled(instance: Any, values: dict[str, Any]) -> Any:
    """A dataclass's instance with these values."""
    refilled = copy.copy(instance)
    for key, value in values.items():
        object.__setattr__(refilled, key, value)  # also of a frozen one
    return refilled


def _refuse_leaf(leaf: Any, name: str, num_samples: int) -> None:
    """Raise InputError where something can neither be cut into samples nor go to everyone."""
    kind = type(leaf).__name__
    if isinstance(leaf, Tensor) and (leaf.layout is not torch.strided or leaf.is_nested):
        raise InputError(f"{name}: a tensor of layout {leaf.layout}; it cannot be cut, a strided one is needed")
    num_entries = _num_entries(leaf)
    if num_entries is None and not isinstance(leaf, Tensor | np.ndarray | str | bytes):
        held = getattr(leaf, "__dict__", {}).values()
        if hasattr(leaf, "__len__") or hasattr(leaf, "__next__") or any(isinstance(t, Tensor) for t in held):
            raise InputError(f"{name}: a {kind}; it cannot be cut, a Mapping, dataclass, list or tensor is needed")
    elif num_entries not in (None, num_samples):
        raise InputError(f"{name}: a {kind} of {num_entries} entries; {num_samples} are needed, as in the first tensor")


def _walk(node: Any) -> Iterator[Any]:
    """Everything in a batch, depth first."""
    if isinstance(node, Mapping):
        children: Any = node.values()
    elif is_dataclass(node) and not isinstance(node, type):
        children = [getattr(node, field.name) for field in fields(node)]
    else:
        children = node if isinstance(node, list | tuple) else ()
    for child in children:
        yield from _walk(child)
    yield node


def _has_rows(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.layout is torch.strided


def _num_entries(leaf: Any) -> int | None:
    """How many entries there are to cut; None for what goes to everyone."""
    if isinstance(leaf, Tensor | np.ndarray):
        return len(leaf) if leaf.ndim else None
    return len(leaf) if isinstance(leaf, list | tuple) else None


def _copied(column: Column, row: int) -> Any:
    if isinstance(column, Tensor):
        return column[row].clone()
    if isinstance(column, Same):
        return column.value
    entries = column.by_worker[row]
    if isinstance(entries, Tensor):
        return entries.clone()
    return entries.copy() if type(entries) in (list, np.ndarray) else entries


def _stacked(column: Column) -> Tensor:
    if isinstance(column, Tensor):
        return column
    if isinstance(column, Entries) and len(column.by_worker) == 1 and isinstance(column.by_worker[0], Tensor):
        return column.by_worker[0][None]
    raise TypeError("the batch holds other things than tensors")


def _picked(column: Column, rows: Tensor) -> Column:
    if isinstance(column, Tensor):  # in its memory format
        return torch.index_select(column, 0, rows.to(column.device), out=torch.empty_like(column[: len(rows)]))
    return column if isinstance(column, Same) else Entries([column.by_worker[row] for row in rows.tolist()])


def _part(column: Column, h: int, num_parts: int) -> Column:
    if isinstance(column, Same):
        return column
    if isinstance(column, Tensor):
        return column.chunk(num_parts, dim=1)[h]
    shares = [len(entries) // num_parts for entries in column.by_worker]
    return Entries([entries[h * n : (h + 1) * n] for entries, n in zip(column.by_worker, shares, strict=True)])
