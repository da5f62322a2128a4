"""What steps change in a module's attributes, such as a counter, a running average of losses, a private random number
generator: one value per worker, as if each had its own module. Metrics, and lists that steps only add to, are shared
and collect all workers' samples."""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from bench.gradients.reached import NUM_LOOKED_INTO, Cell, Items, Members, Reached, Slots, is_a_users
from bench.kernels.noise import Noise

MISSING = object()  # the value of an attribute that a worker's step has not created yet
PLAIN = (int, float, complex, str, bytes, bool, type(None), np.generic, np.ndarray, torch.Generator)

Place = tuple[Cell, Any]
"""A key of a dict, such as the name of an attribute; or a whole cell, with None."""
Rows = dict[Place, list[Any]]


class WorkerAttributes:
    """The attributes of the workers in this process.

    Args:
        module: whose attributes.
        num_workers: L.

    Attributes:
        reached: what they lead to.
        rows: each worker's value of what steps have changed.
    """

    def __init__(self, module: nn.Module, num_workers: int) -> None:
        self.reached = Reached(module)
        self.num_workers = num_workers
        self.rows: Rows = {}
        self._before: dict[Cell, Any] = {}
        self._starts: dict[tuple[int, int], Rows] = {}
        self._growths: dict[Cell, int] = {}  # steps in a row that only added to a container
        self._told: set[str] = set()
        self._thorough = False

    def begin_round(self, turn: int, thorough: bool) -> None:
        """Give all workers what other code changed since the last round; the module then held worker `turn`'s."""
        self._thorough = thorough
        self.reached.find()
        for cell in self.reached.cells.values():
            cell.now(thorough)
        for name in self.reached.iterators:
            self._warn_once(name, "an iterator, which no worker can rewind for the others; a position in a list")
        for place, rows in self.rows.items():
            if (value := _read(place)) is not rows[turn]:
                rows[:] = [value] * self.num_workers

    def forget_starts(self) -> None:
        """Call when a round begins: of earlier ones nobody asks `as_then`."""
        self._starts.clear()

    def begin_pass(self, noise: Noise) -> None:
        """Remember the workers' values for `as_then`. `noise`: of any of them."""
        self._starts[noise.round, noise.part] = {place: list(rows) for place, rows in self.rows.items()}

    def load(self, worker: int) -> None:
        """Write this worker's values to the module."""
        for place, rows in self.rows.items():
            _write(place, rows[worker])
        for cell in {cell for cell, _ in self.rows}:
            cell.now()
        self._before = {cell: cell.value for cell in self.reached.cells.values() if not cell.shared}

    def settle(self, worker: int) -> None:
        """Store what this worker's step changed."""
        for place, earlier in self._changed(self._before):
            if place not in self.rows:
                self.rows[place] = [earlier] * self.num_workers
                for start in self._starts.values():
                    start[place] = [earlier] * self.num_workers
        for place, rows in self.rows.items():
            rows[worker] = _read(place)

    def settle_all(self, before: Mapping[Cell, Any], noise: Noise) -> None:
        """Remember what a step of all workers at once changed, for `as_then`. `before`: by cell, what it found."""
        self._starts[noise.round, noise.part] = {
            place: [earlier] * self.num_workers for place, earlier in self._changed(before)
        }

    def _changed(self, before: Mapping[Cell, Any]) -> Iterator[tuple[Place, Any]]:
        """Yield what a step has changed and each worker keeps for itself, with the value that it found."""
        for cell, earlier in before.items():
            if cell.shared or (now := cell.now(self._thorough)) is earlier:
                continue
            if isinstance(cell, Slots):
                for key in {**earlier, **now}:
                    old, new = earlier.get(key, MISSING), now.get(key, MISSING)
                    if old is not new and _is_kept(old) and _is_kept(new):
                        yield (cell, key), old
            elif (cell, None) not in self.rows and _has_grown(cell, earlier, now):
                self._growths[cell] = self._growths.get(cell, 0) + 1
            elif self._growths.pop(cell, 0) > 1:
                self._warn_once(cell.name, "all workers' steps add to it and take from it; a deque with maxlen")
            elif _is_kept(now):
                yield (cell, None), earlier

    @contextlib.contextmanager
    def as_then(self, noise: Noise, worker: int) -> Iterator[None]:
        """Inside, the module holds what this worker had when a pass of this round began, where steps change it."""
        start = self._starts.get((noise.round, noise.part), {})
        now = {place: _read(place) for place in start}
        for place, rows in start.items():
            _write(place, rows[worker])
        try:
            yield
        finally:
            for place, value in now.items():
                _write(place, value)

    def snapshot(self) -> Rows:
        """The state that `restore` takes."""
        return {place: list(rows) for place, rows in self.rows.items()}

    def restore(self, snapshot: Rows, turn: int) -> None:
        """Restore the workers' values, and write those of worker `turn` to the module."""
        self.rows = {place: list(rows) for place, rows in snapshot.items()}
        for place, rows in self.rows.items():
            _write(place, rows[turn])

    def _warn_once(self, name: str, told: str) -> None:
        """Warn of what workers would each have for themselves in a process of their own, and share here."""
        if self.num_workers > 1 and name not in self._told:
            self._told.add(name)
            rank_zero_warn(f"{name}: {told} is needed for each worker to have its own")


def _read(place: Place) -> Any:
    cell, key = place
    return cell.target.get(key, MISSING) if isinstance(cell, Slots) else cell.now()


def _write(place: Place, value: Any) -> None:
    cell, key = place
    if not isinstance(cell, Slots):
        cell.put(value)
    elif value is MISSING:
        cell.target.pop(key, None)
    else:
        cell.target[key] = value


def _has_grown(cell: Cell, earlier: Any, now: Any) -> bool:
    """Whether a step only added to a container, so that it collects; a deque of limited length is a state."""
    if isinstance(cell, Members):
        return earlier < now
    if not isinstance(cell, Items) or (isinstance(cell.target, deque) and cell.target.maxlen is not None):
        return False
    return len(now) > len(earlier) and all(old is new for old, new in zip(earlier, now, strict=False))


def _is_kept(value: Any, depth: int = 0) -> bool:
    """Whether a value is kept per worker: all but tensors with a graph, which would keep every worker's activations,
    and objects of libraries, of which the last worker's stays."""
    if isinstance(value, Tensor):
        return not value.requires_grad or value.is_leaf
    if value is MISSING or isinstance(value, PLAIN):
        return True
    if depth > 3:
        return False
    if isinstance(value, dict | list | tuple | set | deque):
        parts: Sequence[Any] = list(value.values() if isinstance(value, dict) else value)
    elif is_a_users(type(value)) and hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        parts = list(vars(value).values())
    else:
        return False
    return len(parts) > NUM_LOOKED_INTO or all(_is_kept(part, depth + 1) for part in parts)
