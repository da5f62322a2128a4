"""How many samples a loader's batch has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from bench.errors import InputError


class SampleCounts:
    """Counts the samples of batches: the entries of the first tensor, or, where a loader's `batch_size` says so, those
    of a list, as with `collate_fn=list`. A shorter last batch is counted as those before it.

    Attributes:
        depths: by loader, how deep its lists of samples lie; None where its tensors hold the samples.
    """

    def __init__(self) -> None:
        self.depths: dict[str, int | None] = {}

    def of(self, batch: Any, loader: Any = None, name: str = "batch") -> int | None:
        """N, or None where nothing can be counted.

        Args:
            batch: of one loader.
            loader: it; its `batch_size` is what it was told, if it says so.
            name: of the batch, in messages.

        Raises:
            InputError: it cannot be told whether entries of a list are the samples.
        """
        first = next((len(node) for node in walk(batch) if has_rows(node)), None)
        if first is None:  # no tensor
            return next((n for node in walk(batch) if (n := num_entries(node)) is not None), None)
        if (size := getattr(loader, "batch_size", None)) is None:
            return first
        if first == size:
            self.depths[name] = None
            return first
        lists = lists_of_samples(batch)
        if fitting := [depth for depth, held in lists.items() if len(held) == size]:
            if fitting[0] == 0 and has_rows(batch[0]):
                raise InputError(f"{name}: {size} tensors of {first} entries; it is ambiguous which are the samples, a "
                                 "collate_fn that stacks them or a dict is needed")  # fmt: skip
            self.depths[name] = fitting[0]
        elif (
            first < size
            and name not in self.depths
            and any(not has_rows(held[0]) for held in lists.values() if len(held) < size)
            and getattr(loader, "collate_fn", None) is not default_collate
        ):
            raise InputError(f"{name}: shorter than batch_size={size}, and the first; it is ambiguous whether lists or "
                             "tensors hold the samples, drop_last=True or a smaller batch_size is needed")  # fmt: skip
        deep = self.depths.get(name)
        return first if deep is None or deep not in lists else len(lists[deep])


def lists_of_samples(batch: Any) -> dict[int, Any]:
    """Lists that may hold all samples, by how deep they lie: the batch itself, and the first of its parts, if all are
    lists of one length. Where tensors of different kinds lie side by side, they are fields."""
    parts = list(batch.values()) if isinstance(batch, Mapping) else batch
    if not isinstance(parts, list | tuple) or not parts or hasattr(parts, "_make"):
        return {}
    found = {0: parts} if parts is batch and _are_alike(parts) else {}
    of_lists = all(isinstance(part, list | tuple) and not hasattr(part, "_make") for part in parts)
    if of_lists and len({len(part) for part in parts}) == 1 and all(map(_are_alike, parts)):
        found[1] = parts[0]
    return found


def _are_alike(parts: Sequence[Any]) -> bool:
    """Whether parts may be samples: no tensors, or tensors of one number of dimensions and one type."""
    rows = [part for part in parts if isinstance(part, Tensor)]
    return not rows or (len(rows) == len(parts) and len({(part.ndim, part.dtype) for part in rows}) == 1)


def walk(node: Any) -> Iterator[Any]:
    """Yield everything in a batch, depth first."""
    if isinstance(node, Mapping):
        children: Any = node.values()
    elif is_dataclass(node) and not isinstance(node, type):
        children = [getattr(node, field.name) for field in fields(node)]
    else:
        children = node if isinstance(node, list | tuple) else ()
    for child in children:
        yield from walk(child)
    yield node


def has_rows(leaf: Any) -> bool:
    """Whether it is a tensor that can be cut."""
    return isinstance(leaf, Tensor) and not leaf.is_nested and leaf.ndim > 0 and leaf.layout is torch.strided


def num_entries(leaf: Any) -> int | None:
    """The number of entries to split; None for what goes to every worker."""
    if isinstance(leaf, Tensor | np.ndarray):
        return None if leaf.ndim == 0 else leaf.size(0) if isinstance(leaf, Tensor) else len(leaf)
    return len(leaf) if isinstance(leaf, list | tuple) else None
