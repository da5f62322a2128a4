"""Whose samples are whose: batches dealt to workers."""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

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


def deal(batch: Any, num_workers: int) -> Any:
    """A loader's batch -> a tree of tensors (L, B, …).

    A `Dealt` batch passes as it is. A plain one of N samples is cut into L equal parts in its order; N mod L
    samples at its end are left out, with a warning.

    Raises:
        InputError: tensors that differ in their first dimension, or fewer samples than workers.
    """
    if isinstance(batch, Dealt):
        return batch.tree
    sizes = {len(leaf) if leaf.ndim else 0 for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)}
    if len(sizes) != 1:
        raise InputError(f"batch: tensors of {sorted(sizes)} samples; tensors of one number of samples are needed")
    (num_samples,) = sizes
    share, left_out = divmod(num_samples, num_workers)
    if share == 0:
        raise InputError(
            f"batch: {num_samples} samples for {num_workers} workers; one each is needed, or drop_last=True"
        )
    if left_out:
        warnings.warn(
            f"batch of {num_samples} samples: {left_out} left out, so that {num_workers} workers get {share} each",
            stacklevel=2,
        )

    def cut(leaf: Any) -> Any:
        return leaf[: share * num_workers].view(num_workers, share, *leaf.shape[1:]) if torch.is_tensor(leaf) else leaf

    return tree_map(cut, batch)


def pick(tree: Any, rows: Tensor | int) -> Any:
    """The batches of some workers: tensors (L, B, …) -> (R, B, …), or (B, …) for one. Their memory format is kept."""

    def picked(leaf: Any) -> Any:
        if not torch.is_tensor(leaf):
            return leaf
        if isinstance(rows, int):
            return leaf[rows]
        return torch.index_select(leaf, 0, rows.to(leaf.device), out=torch.empty_like(leaf[: len(rows)]))

    return tree_map(picked, tree)
