"""What steps change in a module's attributes, such as a counter, a running average of losses, a private random number
generator: one value per worker, as if each had its own module. Metrics, and lists and sets that steps only add to, are
shared and collect all workers' samples.

Not seen: what a callback assigns between rounds where the last worker has that very value; what only a class, a thread,
a cache, a weak dictionary or another library's object holds.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric

from bench.gradients.cells import Bulk, Cell, Items, Members, Slots
from bench.gradients.reached import FEW_CELLS, MOST_BYTES, MOST_CELLS, Reached, is_a_users
from bench.kernels.noise import Noise

MISSING = object()  # the value of an attribute that a worker's step has not created yet
WHOLE = object()  # in place of a key
MOST_PARTS = 64  # of a value that is searched for metrics and graphs

Place = tuple[Cell, Any]
"""A key of a dict, such as the name of an attribute; or a whole cell."""
Rows = dict[Place, list[Any]]
Contents = list[tuple[Cell, Any]]


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
        self._watched = [cell for cell in self.reached.cells.values() if not cell.shared]
        self._before: dict[Cell, Any] = {}
        self._left: dict[Place, Contents] = {}  # what the last worker's values held when its step ended
        self._starts: dict[tuple[int, int], tuple[Rows, list[Contents]]] = {}
        self._growths: dict[Cell, int] = {}  # steps in a row that only added to a container
        self._told: set[str] = set()
        self._thorough = False

    def begin_round(self, turn: int, thorough: bool) -> None:
        """Give all workers what other code changed since the last round; the module then held worker `turn`'s."""
        self._thorough = thorough
        if thorough or self.reached.num_cells <= FEW_CELLS:
            self.reached.find(thorough)
            self._forget_unreached()
        self._watched = [cell for cell in self.reached.cells.values() if not cell.shared]
        for cell in self._watched:
            cell.now(thorough)
        if self.reached.too_many:
            self._warn_once("attributes", f"they lead to more than {MOST_CELLS:,} objects; fewer, or a buffer,")
        for name in self.reached.iterators:
            self._warn_once(
                name, "an iterator or queue, which no worker can rewind for the others; a position in a list"
            )
        emptied = {cell for cell, key in self.rows if key is not WHOLE and not cell.target}
        for place, rows in self.rows.items():
            value = _read(place)
            written = not all(cell.is_still(content, thorough=True) for cell, content in self._left.get(place, ()))
            if value is not rows[turn] or written or place[0] in emptied:
                rows[:] = [value] * self.num_workers

    def _forget_unreached(self) -> None:
        """Drop the rows of what neither the module nor any worker's value leads to any more, as of a hook that is made
        anew for each round."""
        known = self.reached.cells
        if all(id(cell.target) in known for cell, _ in self.rows):
            return
        held, waiting = set(known), list(self.rows)
        while waiting:
            there = [place for place in waiting if id(place[0].target) in held]
            if not there:
                break
            waiting = [place for place in waiting if id(place[0].target) not in held]
            values = [value for place in there for value in self.rows[place]]
            held |= {id(cell.target) for value in values for cell in self.reached.cells_of(value)}
        for place in waiting:
            del self.rows[place]
            self._left.pop(place, None)
            self._growths.pop(place[0], None)

    def forget_starts(self) -> None:
        """Call when a round begins: of earlier ones nobody asks `as_then`."""
        self._starts.clear()

    def begin_pass(self, noise: Noise) -> None:
        """Remember the workers' values for `as_then`. `noise`: of any of them."""
        for cell in self._watched:
            cell.now()  # the engine has put its own `log` there
        contents = [self._contents(rows[worker] for rows in self.rows.values()) for worker in range(self.num_workers)]
        self._starts[noise.round, noise.part] = {place: list(rows) for place, rows in self.rows.items()}, contents

    def load(self, worker: int) -> None:
        """Write this worker's values to the module."""
        for place, rows in self.rows.items():
            _write(place, rows[worker])
        for cell in {cell for cell, _ in self.rows}:
            cell.now()
        self._before = {cell: cell.value for cell in self._watched}

    def settle(self, worker: int) -> None:
        """Store what this worker's step changed."""
        for place, earlier in self._changed(self._before):
            place[0].changes = True
            if place not in self.rows:
                self.rows[place] = [earlier] * self.num_workers
                for start, _ in self._starts.values():
                    start[place] = [earlier] * self.num_workers
        for place, rows in self.rows.items():
            rows[worker] = _read(place)
            if worker < self.num_workers - 1 and _has_graph(rows[worker]):
                rows[worker] = rows[worker].detach()  # the graph would keep each worker's activations
        if worker == self.num_workers - 1:
            self._left = {place: self._contents([rows[worker]]) for place, rows in self.rows.items()}

    def settle_all(self, before: Mapping[Cell, Any], noise: Noise) -> None:
        """Remember what a step of all workers at once changed, for `as_then`. `before`: by cell, what it found."""
        start: Rows = {place: [earlier] * self.num_workers for place, earlier in self._changed(before)}
        self._starts[noise.round, noise.part] = start, [[]] * self.num_workers

    def _contents(self, values: Any) -> Contents:
        """What these values hold, as far as steps may change it in place."""
        return [
            (cell, cell.value)
            for value in values
            if value is not None and not isinstance(value, int | float | str)
            for cell in self.reached.cells_of(value)
        ]

    def _changed(self, before: Mapping[Cell, Any]) -> Iterator[tuple[Place, Any]]:
        """Yield what a step has changed and each worker keeps for itself, with the value that it found."""
        for cell, earlier in before.items():
            if cell.shared or (now := cell.now(self._thorough)) is earlier:
                continue
            if isinstance(cell, Bulk):
                megabytes = MOST_BYTES // 2**20
                self._warn_once(cell.name, f"steps change it, but more than {megabytes} MiB are not copied; a buffer")
            elif type(cell) is Slots:
                for key in {**earlier, **now}:
                    old, new = earlier.get(key, MISSING), now.get(key, MISSING)
                    if old is not new and not (_is_shared(old) or _is_shared(new)):
                        yield (cell, key), old
            elif (cell, WHOLE) not in self.rows and _has_grown(cell, earlier, now):
                self._growths[cell] = self._growths.get(cell, 0) + 1
            elif self._growths.pop(cell, 0) and _goes_on(earlier, now):
                self._warn_once(cell.name, "all workers' steps add to it and take from it; a deque with maxlen")
            elif not _is_shared(now):
                yield (cell, WHOLE), earlier

    @contextlib.contextmanager
    def as_then(self, noise: Noise, worker: int) -> Iterator[None]:
        """Inside, the module holds what this worker had when a pass of this round began, where steps change it."""
        start, contents = self._starts.get((noise.round, noise.part), ({}, [[]] * self.num_workers))
        now, held = {place: _read(place) for place in start}, [(cell, cell.now()) for cell, _ in contents[worker]]
        for place, rows in start.items():
            _write(place, rows[worker])
        for cell, content in contents[worker]:
            cell.put(content)
        try:
            yield
        finally:
            for cell, content in held:
                cell.put(content)
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
    return cell.now() if key is WHOLE else cell.target.get(key, MISSING)


def _write(place: Place, value: Any) -> None:
    cell, key = place
    if key is WHOLE:
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


def _goes_on(earlier: Any, now: Any) -> bool:
    """Whether a container goes on from what it held, rather than being filled anew by each step."""
    return not now or not {*map(id, earlier)}.isdisjoint(map(id, now))


def _has_graph(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and not value.is_leaf


def _is_shared(value: Any, depth: int = 0) -> bool:
    """Whether the last worker's value stays: metrics, and containers of a tensor with a graph, which would keep every
    worker's activations."""
    if isinstance(value, Tensor):
        return depth > 0 and _has_graph(value)
    if isinstance(value, Metric):
        return True
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple | set | deque):
        parts = value
    elif is_a_users(type(value)) and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        parts = vars(value).values()
    else:
        return False
    return depth < 4 and len(parts) <= MOST_PARTS and any(_is_shared(part, depth + 1) for part in parts)
