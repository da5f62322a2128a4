"""Dealing a loader's batch to workers: which parts are split, and which go to every worker whole."""

import copy
import warnings
from collections import UserDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import InputError
from bench.gradients.batches import Column, Dealt, Entries, Rebuild, Same, Shards, as_shards
from bench.gradients.cells import slots_of
from bench.gradients.counting import SampleCounts, has_rows, num_entries


def deal(
    batch: Any,
    num_workers: int,
    num_parts: int = 1,
    loaders: Any = None,
    warn: Callable[[str], None] = warnings.warn,
    counts: SampleCounts | None = None,
) -> Shards | None:
    """Split a loader's batch into those of L workers; None, with a warning, if it is too short.

    A `Dealt` batch passes unchanged, and a single worker that splits nothing takes any batch. Any other batch of N
    samples (`SampleCounts`) is split in order into L equal shares, each a multiple of `num_parts`; surplus samples at
    its end are left out, with a warning. Tensors, arrays, lists and tuples of N entries are split; Mappings,
    dataclasses, named tuples, and lists and tuples of tensors are traversed; strings, numbers and 0-dim tensors go to
    every worker.

    Args:
        batch: from the loader.
        num_workers: L.
        num_parts: number of parts that each worker's samples are split into later.
        loaders: that the batch comes from: one, or a dict or list, each with its own N; None if they are not known.
        warn: called with a message on what is left out.
        counts: of earlier batches of the same loaders.

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
    counts = counts or SampleCounts()

    def cut(part: Any, name: str, loader: Any) -> Shards | None:
        return _cut(part, name, counts.of(part, loader, name), num_workers, num_parts, warn)

    if not isinstance(loaders, dict | list | tuple):
        return cut(batch, "batch", loaders)
    keys = list(loaders) if isinstance(loaders, Mapping) else list(range(len(loaders)))
    none_left = Shards(num_workers, [Same(None)], next)  # of a loader that is exhausted before the others
    shards = [none_left if batch[key] is None else cut(batch[key], f"batch[{key!r}]", loaders[key]) for key in keys]
    whole = [each for each in shards if each is not None]
    if len(whole) < len(shards):
        return None

    def rebuild(leaves: Iterator[Any], /) -> Any:
        values = [each.rebuild(leaves) for each in whole]
        if isinstance(loaders, Mapping):
            return dict(zip(keys, values, strict=True))
        return getattr(loaders, "_make", partial(_sequence_of, loaders))(values)

    return Shards(num_workers, [column for each in whole for column in each.columns], rebuild)


def _cut(
    batch: Any, name: str, num_samples: int | None, num_workers: int, num_parts: int, warn: Callable[[str], None]
) -> Shards | None:
    """Deal one loader's batch."""
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
        if has_rows(leaf):
            return leaf[: share * num_workers].unflatten(0, (num_workers, share))
        if num_entries(leaf) is not None:
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
        if num_samples is not None:
            _refuse_attributes(node, name)
        children = {f"{name}[{key!r}]": child for key, child in node.items()}
        return _gone_through(children, num_samples, lambda values: _filled(node, dict(zip(node, values, strict=True))))
    if is_dataclass(node) and not isinstance(node, type):
        keys = [field.name for field in fields(node)]
        derived = {key for key in vars(node) if key not in keys} if hasattr(node, "__dict__") else set[str]()
        keys += [key for key in derived if not isinstance(getattr(type(node), key, None), cached_property)]
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
    if not any(isinstance(child, Mapping) or is_dataclass(child) or num_entries(child) is not None for child in node):
        return None
    children = {f"{name}[{i}]": child for i, child in enumerate(node)}
    make: Any = getattr(node, "_make", partial(_sequence_of, node))
    holds_rows = any(has_rows(child) and len(child) == num_samples for child in node)
    may_be_entries = num_samples == len(node) and not holds_rows and not hasattr(node, "_make")
    try:
        leaves, rebuild = _gone_through(children, num_samples, make)
    except InputError:
        if may_be_entries:
            return None
        raise
    if num_samples is not None and all(num_entries(leaf) is None for leaf in leaves):
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


def _sequence_of(like: list[Any] | tuple[Any, ...], values: list[Any]) -> Any:
    """A list or tuple of the same class, where that can be made of values."""
    kind: Any = type(like)
    try:
        return kind(values)
    except Exception:  # whatever the class raises
        return values if isinstance(like, list) else tuple(values)


def _filled(mapping: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """A Mapping of the same type with these values, in which nothing is left of the old ones; a dict where its class
    allows none."""
    if type(mapping) is dict:
        return values
    ways = [_copied, _constructed] if isinstance(mapping, UserDict) else [_constructed, _copied]
    before = dict(mapping)
    for way in ways:
        try:
            made = way(mapping, values)
            fits = made.keys() == values.keys() and all(made[key] is values[key] for key in values)
        except Exception:  # whatever the class raises
            made, fits = None, False
        shared = {key: value for key, value in before.items() if mapping[key] is not value}
        _fill(mapping, shared)
        if fits and not shared:
            return made
    return values


def _constructed(mapping: Any, values: dict[Any, Any]) -> Any:
    """As Lightning makes one when it moves a batch, with the attributes that it lacks then."""
    kind = type(mapping)
    made = kind(mapping.default_factory, values) if isinstance(mapping, defaultdict) else kind(values)
    own = getattr(made, "__dict__", {})
    own.update({name: value for name, value in getattr(mapping, "__dict__", {}).items() if name not in own})
    return made


def _copied(mapping: Any, values: dict[Any, Any]) -> Any:
    return _fill(copy.copy(mapping), values)


def _fill(mapping: Any, values: Mapping[Any, Any]) -> Any:
    for key, value in values.items():
        mapping[key] = value
    return mapping


def _refilled(instance: Any, values: dict[str, Any]) -> Any:
    """A copy of a dataclass instance with these values, without what was computed from the old ones."""
    refilled = copy.copy(instance)
    for key, value in values.items():
        object.__setattr__(refilled, key, value)  # works on frozen ones, too
    for key in getattr(instance, "__dict__", {}).keys() - values.keys():
        del vars(refilled)[key]
    return refilled


def _refuse_leaf(leaf: Any, name: str, num_samples: int) -> None:
    """Raise InputError if a leaf can neither be split into samples nor go to every worker."""
    kind = type(leaf).__name__
    if isinstance(leaf, Tensor) and (leaf.layout is not torch.strided or leaf.is_nested):
        layout = "nested" if leaf.is_nested else str(leaf.layout)
        raise InputError(f"{name}: a tensor of layout {layout}; it cannot be cut, a strided one is needed")
    number = num_entries(leaf)
    if number is None and not isinstance(leaf, Tensor | np.ndarray | str | bytes):
        if hasattr(leaf, "__len__") or hasattr(leaf, "__next__") or any(_lead_to_rows(held) for held in _held(leaf)):
            raise InputError(f"{name}: a {kind}; it cannot be cut, a Mapping, dataclass, list or tensor is needed")
    elif number not in (None, num_samples):
        raise InputError(f"{name}: a {kind} of {number} entries; {num_samples} are needed, as in the first tensor")


def _refuse_attributes(mapping: Mapping[Any, Any], name: str) -> None:
    """Raise InputError if a Mapping holds samples besides its entries."""
    entries = set(map(id, mapping.values()))
    for key, held in getattr(mapping, "__dict__", {}).items():
        if held is not mapping and id(held) not in entries and _lead_to_rows(held, entries):
            raise InputError(f"{name}.{key}: an attribute beside the entries; it cannot be cut, an entry is needed")


def _held(leaf: Any) -> Iterator[Any]:
    """Yield what an object's attributes hold."""
    yield from getattr(leaf, "__dict__", {}).values()
    yield from (getattr(leaf, slot, None) for slot in slots_of(type(leaf)))


def _lead_to_rows(held: Any, known: Collection[int] = ()) -> bool:
    """Whether there are tensors or arrays to cut, other than known ones, or several numbers of samples in a list."""
    if isinstance(held, Tensor | np.ndarray):
        return held.ndim > 0 and id(held) not in known
    parts = held.values() if isinstance(held, Mapping) else held if isinstance(held, list | tuple) else ()
    known = {*known, id(held)}
    others = [part for part in parts if id(part) not in known]
    several = sum(isinstance(part, Tensor | np.ndarray) for part in others) > 1
    return several or any(_lead_to_rows(part, known) for part in others)
