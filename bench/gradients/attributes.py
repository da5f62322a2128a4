"""Plain attributes that a step assigns, such as a counter or a running average of its losses: one value per worker, as
if each had its own module. Lists and metrics, which steps add to, are shared and collect all workers' samples."""

from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

MISSING = object()  # the value of an attribute that a worker's step has not created yet
NUMBERS = (int, float, complex, str, bool, type(None))
MOST_ENTRIES = 1024
"""The most that a tensor kept per worker has; larger ones count as outputs, and the last worker's stays."""


class WorkerAttributes:
    """The attributes of the workers in this process.

    Args:
        module: whose attributes.
        num_workers: L.

    Attributes:
        rows: each worker's value, by module and name.
    """

    def __init__(self, module: nn.Module, num_workers: int) -> None:
        self.owners = [m for m in module.modules() if not isinstance(m, Metric)]
        self.num_workers = num_workers
        self.rows: dict[tuple[int, str], list[Any]] = {}
        self.before: list[dict[str, Any]] = []

    def begin_round(self, turn: int) -> None:
        """Give all workers what other code assigned since the last round; the module then held worker `turn`'s."""
        for (owner, name), rows in self.rows.items():
            if (value := vars(self.owners[owner]).get(name, MISSING)) is not rows[turn]:
                rows[:] = [value] * self.num_workers

    def load(self, worker: int) -> None:
        """Write this worker's values to the module."""
        for (owner, name), rows in self.rows.items():
            self._assign(owner, name, rows[worker])
        self.before = [dict(vars(m)) for m in self.owners]

    def settle(self, worker: int) -> None:
        """Store what this worker's step assigned."""
        for owner, (m, before) in enumerate(zip(self.owners, self.before, strict=True)):
            for name, value in vars(m).items():
                earlier = before.get(name, MISSING)
                if value is not earlier and _is_kept(value) and _is_kept(earlier):
                    self.rows.setdefault((owner, name), [earlier] * self.num_workers)
        for (owner, name), rows in self.rows.items():
            rows[worker] = vars(self.owners[owner]).get(name, MISSING)

    def _assign(self, owner: int, name: str, value: Any) -> None:
        if value is MISSING:
            vars(self.owners[owner]).pop(name, None)
        else:
            vars(self.owners[owner])[name] = value

    def snapshot(self) -> dict[tuple[int, str], list[Any]]:
        """The state that `restore` takes."""
        return {place: list(rows) for place, rows in self.rows.items()}

    def restore(self, snapshot: dict[tuple[int, str], list[Any]], turn: int) -> None:
        """Restore the workers' values, and write those of worker `turn` to the module."""
        self.rows = {place: list(rows) for place, rows in snapshot.items()}
        for (owner, name), rows in self.rows.items():
            self._assign(owner, name, rows[turn])


def _is_kept(value: Any) -> bool:
    """Whether a value is kept per worker: numbers, strings, small tensors without a graph, and tuples of these."""
    if isinstance(value, Tensor):
        return not value.requires_grad and value.numel() <= MOST_ENTRIES
    return value is MISSING or isinstance(value, NUMBERS) or (isinstance(value, tuple) and all(map(_is_kept, value)))
