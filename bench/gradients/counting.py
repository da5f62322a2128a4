"""How many samples a loader's batch has."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


class SampleCounts:
    """Counts the samples of batches: the entries of the first tensor, or, where a loader's `batch_size` says so, those
    of a list, as with `collate_fn=list`. A shorter last batch is counted as those before it."""

    def __init__(self) -> None:
        self._depths: dict[str, int] = {}  # by loader: how deep the list of samples lies

    def of(self, batch: Any, batch_size: int | None = None, loader: str = "") -> int | None:
        """N, or None where nothing can be counted.

        Args:
            batch: of one loader.
            batch_size: that the loader was told; None if it does not say.
            loader: its name.
        """
        nodes = list(walk(batch))
        first = next((len(node) for _, node in nodes if has_rows(node)), None)
        if first is None:  # no tensor
            return next((n for _, node in nodes if (n := num_entries(node)) is not None), None)
        lists = [(depth, len(node)) for depth, node in nodes if isinstance(node, list | tuple)]
        if first == batch_size:
            self._depths.pop(loader, None)
        elif found := [depth for depth, length in lists if length == batch_size]:
            self._depths[loader] = min(found)
        if (deep := self._depths.get(loader)) is None:
            return first
        return next((length for depth, length in lists if depth == deep), first)


def walk(node: Any, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """Yield everything in a batch, and how deep it lies, depth first."""
    if isinstance(node, Mapping):
        children: Any = node.values()
    elif is_dataclass(node) and not isinstance(node, type):
        children = [getattr(node, field.name) for field in fields(node)]
    else:
        children = node if isinstance(node, list | tuple) else ()
    for child in children:
        yield from walk(child, depth + 1)
    yield depth, node


def has_rows(leaf: Any) -> bool:
    """Whether it is a tensor that can be cut."""
    return isinstance(leaf, Tensor) and not leaf.is_nested and leaf.ndim > 0 and leaf.layout is torch.strided


def num_entries(leaf: Any) -> int | None:
    """The number of entries to split; None for what goes to every worker."""
    if isinstance(leaf, Tensor | np.ndarray):
        return None if leaf.ndim == 0 else leaf.size(0) if isinstance(leaf, Tensor) else len(leaf)
    return len(leaf) if isinstance(leaf, list | tuple) else None
