"""The state of the workers that live in this process, a row each: all ten in a simulation, one in a real process."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Workers:
    """Rows of state for L workers.

    Args:
        ranks: their ranks among all M workers.
        kept: (L, n, d) zeros, for the n vectors that the recipe's feedback keeps.
        memory: rows (L, …) that the upload rule starts with.

    Attributes:
        upload_rounds: (L,) the round of each worker's last upload.
        sent_nothing: (L,) bool, whether entries of that upload were 0 only because their learning rate was.
        kept: (L, n, d) what the feedback keeps: errors, accumulators, momenta.
        memory: rows (L, …) that an upload rule keeps.
        snapshots: parameters (d,) by round, shared by all workers that last uploaded then.
        movements: ‖w^{t+1−i} − w^{t−i}‖² of the last rounds, newest last.
    """

    def __init__(self, ranks: Sequence[int], kept: Tensor, memory: dict[str, Tensor]) -> None:
        self.ranks = tuple(ranks)
        self.upload_rounds = torch.zeros(len(ranks), dtype=torch.int64)
        self.sent_nothing = torch.zeros(len(ranks), dtype=torch.bool)
        self.kept = kept
        self.memory = memory
        self.snapshots: dict[int, Tensor] = {}
        self.movements: list[float] = []

    def remember(self, parameters: Tensor, round: int, num_movements: int) -> None:
        """Keep this round's parameters (d,), and how far they moved since the last round."""
        if (last := self.snapshots.get(round - 1)) is not None:
            movements = [*self.movements, torch.dist(parameters, last).item() ** 2]
            self.movements = movements[max(0, len(movements) - num_movements) :]
        self.snapshots[round] = parameters.clone()

    def stale(self, rows: Tensor) -> list[Tensor]:
        """The parameters (d,) at the last upload of each of these rows."""
        return [self.snapshots[t] for t in self.upload_rounds[rows].tolist()]

    def finish_round(self, uploaded: Tensor, round: int, stands: bool) -> None:
        """Note who uploaded, (L,) bool, and forget the parameters that nobody needs any more.

        Args:
            uploaded: (L,) bool.
            round: t.
            stands: whether entries were sent as 0 because their learning rate is.
        """
        self.upload_rounds = torch.where(uploaded, round, self.upload_rounds)
        self.sent_nothing = torch.where(uploaded, stands, self.sent_nothing)
        needed = {round, *self.upload_rounds.tolist()}
        self.snapshots = {t: vector for t, vector in self.snapshots.items() if t in needed}

    def state_dict(self) -> dict[str, Any]:
        """On the CPU: under "rows" (L, …) by name, and what all workers have in common."""
        rows = {
            "upload_rounds": self.upload_rounds,
            "sent_nothing": self.sent_nothing,
            "kept": self.kept,
            **self.memory,
        }
        return {
            "rows": {name: t.cpu() for name, t in rows.items()},
            "snapshots": {t: vector.cpu() for t, vector in self.snapshots.items()},
            "movements": self.movements,
        }

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        """Take the rows of this process's workers from the rows of all M."""
        rows = {name: t[list(self.ranks)] for name, t in state["rows"].items()}
        self.upload_rounds = rows.pop("upload_rounds")
        self.sent_nothing = rows.pop("sent_nothing", self.sent_nothing)
        self.kept = rows.pop("kept", self.kept).reshape(self.kept.shape).to(device)  # (L, d), or none, in old ones
        self.memory = {name: t.to(device) for name, t in rows.items()}
        needed = {*self.upload_rounds.tolist(), max(state["snapshots"], default=0)}
        self.snapshots = {t: v.to(device) for t, v in state["snapshots"].items() if t in needed}
        self.movements = list(state["movements"])
