"""Where two configs differ."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.configured import RENAMED


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two configs differ: both values by dotted key, sorted. A part's old path equals its current one."""
    left, right = ({key: RENAMED.get(str(value), value) for key, value in _leaves(tree)} for tree in (a, b))
    pairs = {key: (left.get(key), right.get(key)) for key in sorted(left.keys() | right.keys())}
    return {key: (ours, theirs) for key, (ours, theirs) in pairs.items() if ours != theirs}


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of a nested config."""
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
