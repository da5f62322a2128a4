"""Dealing a loader's batch to workers: which parts are split, and which go to every worker whole."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import InputError
from bench.gradients.batches import Column, Dealt, Entries, Rebuild, Same, Shards, as_shards


def deal(
    batch: Any,
    num_workers: int,
    num_parts: int = 1,
    loaders: Any = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Shards | None:
    """Split a loader's batch into those of L workers; None, with a warning, if it is too short.

    A `Dealt` batch passes unchanged, and a single worker that splits nothing takes any batch. Any other batch of N
    samples, N being the length of its first tensor, is split in order into L equal shares, each a multiple of
    `num_parts`; surplus samples at its end are left out, with a warning. Tensors, arrays, lists and tuples of N entries
    are split; Mappings, dataclasses, named tuples, and lists and tuples of tensors are traversed; strings, numbers and
    0-dim tensors go to every worker.

    Args:
        batch: from the loader.
        num_workers: L.
        num_parts: number of parts that each worker's samples are split into later.
        loaders: a dict or list of loaders, each with its own N; None if there is one loader.
        warn: called with a message on what is left out.

    Raises:
        InputError: a component has another length than N, or is of a kind that cannot be split.
    """
    if isinstance(batch, Dealt):
        shards = as_shards(batch, num_parts)
        if shards.num_workers != num_workers:
            raise InputError(f"batch: dealt to {shards.num_workers} workers; {num_workers} are here")
        return shards
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


def _cut(batch: Any, name: str, num_workers: int, num_parts: int, warn: Callable[[str], None]) -> Shards | None:
    """Deal one loader's batch."""
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
    """The leaves of a batch, and a function that rebuilds the batch from such leaves.

    Args:
        node: a batch, or a part of one.
        name: its name in messages.
        num_samples: the number of entries that its leaves must have; None to skip the check.

    Raises:
        InputError: a leaf has another number, or cannot be split.
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
    """Flatten a list or tuple; None if it is itself N entries, such as strings, or the boxes of each picture.

    Raises:
        InputError: as for `_flatten`; or it could be either.
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
            f"{name}: {num_samples} entries that hold {num_samples} each; it is ambiguous which are the samples, "
            "another batch size is needed"
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
    """A copy of a dataclass instance with these values."""
    refilled = copy.copy(instance)
    for key, value in values.items():
        object.__setattr__(refilled, key, value)  # works on frozen ones, too
    return refilled


def _refuse_leaf(leaf: Any, name: str, num_samples: int) -> None:
    """Raise InputError if a leaf can neither be split into samples nor go to every worker."""
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
    """Yield everything in a batch, depth first."""
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
    """The number of entries to split; None for what goes to every worker."""
    if isinstance(leaf, Tensor | np.ndarray):
        return len(leaf) if leaf.ndim else None
    return len(leaf) if isinstance(leaf, list | tuple) else None
