"""Plain attributes that a step assigns, such as a counter or an average of its losses: a row a worker, as if each had a
module of its own. What steps add to, lists or metrics, is everybody's: there all workers' samples come together."""

from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

MISSING = object()  # what a worker has of an attribute that its step has not made yet
NUMBERS = (int, float, complex, str, bool, type(None))
MOST_ENTRIES = 1024
"""Of a tensor of which every worker keeps its own; others are outputs, and the last one stays."""


class WorkerAttributes:
    """Those of the workers in this process.

    Args:
        module: whose they are.
        num_workers: L.

    Attributes:
        rows: by module and name, what each worker has.
    """

    def __init__(self, module: nn.Module, num_workers: int) -> None:
        self.owners = [m for m in module.modules() if not isinstance(m, Metric)]
        self.num_workers = num_workers
        self.rows: dict[tuple[int, str], list[Any]] = {}
        self.before: list[dict[str, Any]] = []

    def begin_round(self, turn: int) -> None:
        """What others assigned since the round of the worker whose turn it was becomes every worker's."""
        for (owner, name), rows in self.rows.items():
            if (value := vars(self.owners[owner]).get(name, MISSING)) is not rows[turn]:
                rows[:] = [value] * self.num_workers

    def load(self, worker: int) -> None:
        """Give the module this worker's."""
        for (owner, name), rows in self.rows.items():
            self._assign(owner, name, rows[worker])
        self.before = [dict(vars(m)) for m in self.owners]

    def settle(self, worker: int) -> None:
        """Keep what this worker's step assigned."""
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
        """What `restore` takes."""
        return {place: list(rows) for place, rows in self.rows.items()}

    def restore(self, snapshot: dict[tuple[int, str], list[Any]], turn: int) -> None:
        """Let the workers have again what they had, and the module that of the one whose turn it was."""
        self.rows = {place: list(rows) for place, rows in snapshot.items()}
        for (owner, name), rows in self.rows.items():
            self._assign(owner, name, rows[turn])


def _is_kept(value: Any) -> bool:
    """Whether a worker has a value of its own: numbers, words, and small tensors without a graph."""
    if isinstance(value, Tensor):
        return not value.requires_grad and value.numel() <= MOST_ENTRIES
    return value is MISSING or isinstance(value, NUMBERS) or (isinstance(value, tuple) and all(map(_is_kept, value)))
