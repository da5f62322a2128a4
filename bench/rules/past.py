"""What upload rules keep about the workers' past uploads, one row per worker."""

import torch
from torch import Tensor


class Past:
    """The past uploads of L workers.

    Args:
        memory: the initial rows (L, …) of the upload rule, by name.
        num_rows: L.

    Attributes:
        upload_rounds: (L,) the round of each worker's last upload.
        sent_nothing: (L,) bool, whether entries of that upload were 0 only because their learning rate was 0.
        memory: rows (L, …) that the upload rule keeps, by name.
        snapshots: parameters (d,) by round, shared by all workers whose last upload was in that round.
        movements: ‖w^{t+1−i} − w^{t−i}‖² of recent rounds, newest last.
    """

    def __init__(self, memory: dict[str, Tensor], num_rows: int) -> None:
        self.num_rows = num_rows
        self.upload_rounds = torch.zeros(num_rows, dtype=torch.int64)
        self.sent_nothing = torch.zeros(num_rows, dtype=torch.bool)
        self.memory = memory
        self.snapshots: dict[int, Tensor] = {}
        self.movements: list[float] = []

    def remember(self, parameters: Tensor, round: int, num_movements: int) -> None:
        """Keep this round's parameters (d,) and their squared distance to the last round's."""
        if (last := self.snapshots.get(round - 1)) is not None:
            movements = [*self.movements, torch.dist(parameters, last).item() ** 2]
            self.movements = movements[max(0, len(movements) - num_movements) :]
        self.snapshots[round] = parameters.clone()

    def stale(self, rows: Tensor) -> list[Tensor]:
        """Return the parameters (d,) at the last upload of each of these rows."""
        return [self.snapshots[t] for t in self.upload_rounds[rows].tolist()]

    def finish_round(self, uploaded: Tensor, round: int, stands: bool) -> None:
        """Record which workers uploaded, and drop the parameters that no worker needs any more.

        Args:
            uploaded: (L,) bool.
            round: t.
            stands: whether some entries were sent as 0 because their learning rate is 0.
        """
        self.upload_rounds = torch.where(uploaded, round, self.upload_rounds)
        self.sent_nothing = torch.where(uploaded, stands, self.sent_nothing)
        needed = {round, *self.upload_rounds.tolist()}
        self.snapshots = {t: vector for t, vector in self.snapshots.items() if t in needed}
