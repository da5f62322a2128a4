"""Whose samples are whose: batches dealt to workers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
