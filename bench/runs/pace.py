"""The pace of a run: its learning rate and rounds a second. Loggers get both beside a row of the history.

They are no columns of history.csv: a learning rate follows from the config, and a speed is the machine's, so that the
file is the same to the byte wherever a run is made.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

from lightning import Trainer

from bench.runs.columns import Row

PACE = ("learning_rate", "rounds_per_s")
"""`learning_rate`: of the optimizer's first group, in the last round; `rounds_per_s`: since the evaluation before, or
since the run was resumed, evaluations left out."""


class Pace:
    """Measures a run's pace, and keeps it by evaluation.

    Attributes:
        by_round: what was measured up to each evaluation, by its round; {name of PACE: number}.
    """

    def __init__(self) -> None:
        self.by_round: dict[int, dict[str, float]] = {}
        self._learning_rate = 0.0
        self._started, self._num_rounds = 0.0, 0

    def round_begins(self, trainer: Trainer) -> None:
        if not self._num_rounds:
            self._started = time.perf_counter()
        self._num_rounds += 1
        self._learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])  # before a schedule changes it

    def evaluation_begins(self, round: int) -> None:
        """Note the pace of the rounds up to this one; none if the run was resumed after the last of them."""
        if not self._num_rounds:
            return
        elapsed_s = time.perf_counter() - self._started
        self.by_round[round] = dict(zip(PACE, (self._learning_rate, self._num_rounds / elapsed_s), strict=True))
        self._num_rounds = 0


def paced(rows: Sequence[Row], learning_rate: float) -> Iterator[Row]:
    """Rows with their pace, by their `measured_s`. The first, before any round, has no speed."""
    for before, row in pairwise([rows[0], *rows]):
        elapsed_s = row["measured_s"] - before["measured_s"]
        speed = {"rounds_per_s": (row["round"] - before["round"]) / elapsed_s} if elapsed_s else {}
        yield {**row, "learning_rate": learning_rate, **speed}
