"""Batches dealt to workers: which samples belong to which worker."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from bench.errors import InputError


class Dealt(NamedTuple):
    """A batch already dealt: every tensor in `tree` is (L, B, …), one row per worker of this process."""

    tree: Any


class Served(NamedTuple):
    """An evaluation batch for some of the workers: evaluated with the mean of their buffers, not of everyone's."""

    tree: Any
    ranks: slice


@runtime_checkable
class WholeEpoch(Protocol):
    """A loader whose epoch can be read again from its beginning, without advancing the loader."""

    def whole_epoch(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Entries:
    """One sequence of entries per worker, such as its strings."""

    by_worker: list[Any]


@dataclass(frozen=True)
class Same:
    """A value that every worker gets unchanged, such as a number."""

    value: Any


Column = Tensor | Entries | Same
"""One component of all workers' batches; a tensor is (R, B, …)."""

Rebuild = Callable[[Iterator[Any]], Any]
"""One worker's components, in the order of the columns -> its batch."""


class Shards:
    """The batches of R workers. Whoever reads gets copies, as a step may modify its batch.

    Args:
        num_workers: R.
        columns: the components of the batches.
        rebuild: puts one worker's components together as in the loader's batch.
    """

    def __init__(self, num_workers: int, columns: Sequence[Column], rebuild: Rebuild) -> None:
        self.num_workers = num_workers
        self.columns = columns
        self.rebuild = rebuild

    def of(self, row: int) -> Any:
        """One worker's batch. Each tensor has its own memory, as in a process of its own."""
        return self.rebuild(_copied(column, row) for column in self.columns)

    def pick(self, rows: Tensor) -> "Shards":
        """The batches of some workers."""
        columns = [_picked(column, rows) for column in self.columns]
        return Shards(len(rows), columns, self.rebuild)

    def parts(self, num_parts: int) -> list["Shards"]:
        """Split every worker's samples, in their order, into `num_parts` equal parts."""
        return [
            Shards(self.num_workers, [_part(column, h, num_parts) for column in self.columns], self.rebuild)
            for h in range(num_parts)
        ]

    def stacked(self) -> Any:
        """A copy of all batches as one, of tensors (R, B, …).

        Raises:
            TypeError: they hold something other than tensors.
        """
        return self.rebuild(map(_stacked, self.columns))


def as_shards(dealt: Dealt, num_parts: int = 1) -> Shards:
    """The workers' batches in a dealt batch. `num_parts`: as for `deal`.

    Raises:
        InputError: a worker's samples cannot be split into `num_parts` equal parts.
    """
    leaves, spec = tree_flatten(dealt.tree)
    columns = [leaf if isinstance(leaf, Tensor) else Same(leaf) for leaf in leaves]
    shapes = [column.shape for column in columns if isinstance(column, Tensor)]
    for shape in shapes:
        if shape[1] % num_parts:
            raise InputError(f"batch: {shape[1]} samples a worker; a multiple of num_steps, {num_parts}, is needed")
    return Shards(shapes[0][0], columns, lambda parts: tree_unflatten(list(parts), spec))


def _copied(column: Column, row: int) -> Any:
    if isinstance(column, Tensor):
        return column[row].clone()
    if isinstance(column, Same):
        return column.value.clone() if isinstance(column.value, Tensor) else column.value
    entries = column.by_worker[row]
    if isinstance(entries, Tensor):
        return entries.clone()
    return entries.copy() if type(entries) in (list, np.ndarray) else entries


def _stacked(column: Column) -> Tensor:
    if isinstance(column, Tensor):
        return column.clone()
    if isinstance(column, Entries) and len(column.by_worker) == 1 and isinstance(column.by_worker[0], Tensor):
        return column.by_worker[0][None].clone()
    raise TypeError("the batch holds something other than tensors")


def _picked(column: Column, rows: Tensor) -> Column:
    if isinstance(column, Tensor):  # keeps its memory format
        return torch.index_select(column, 0, rows.to(column.device), out=torch.empty_like(column[: len(rows)]))
    return column if isinstance(column, Same) else Entries([column.by_worker[row] for row in rows.tolist()])


def _part(column: Column, h: int, num_parts: int) -> Column:
    if isinstance(column, Same):
        return column
    if isinstance(column, Tensor):
        return column.chunk(num_parts, dim=1)[h]
    shares = [len(entries) // num_parts for entries in column.by_worker]
    return Entries([entries[h * n : (h + 1) * n] for entries, n in zip(column.by_worker, shares, strict=True)])
