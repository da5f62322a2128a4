"""Where the workers run: all in this process, or one in each of M processes.

Both worlds run the same round and differ only in how data moves. `exchange` returns the messages of all uploaders in
rank order, the same in every process; from there on every process computes the same bits.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.collectives.report import Report
from bench.wire.message import Message


@dataclass(frozen=True)
class Exchange:
    """The result of an exchange: M workers' reports, the uploaders' messages in rank order, and seconds in transit."""

    report: Report
    messages: Message | None
    measured_s: float


class World(ABC):
    """All M workers, as seen from this process.

    Attributes:
        size: M.
        local_ranks: the ranks of the workers in this process.
    """

    size: int
    local_ranks: range

    @abstractmethod
    def exchange(self, report: Report, message: Message | None, schema: Message, round: int) -> Exchange:
        """Exchange reports and messages with all other processes.

        Args:
            report: of the local workers.
            message: of the local uploaders; None if there are none.
            schema: a blank message of the kind that all workers send.
            round: for error messages.

        Raises:
            WorkerLostError: another process did not answer in time.
        """

    @abstractmethod
    def maximum(self, offered: Tensor) -> tuple[Tensor, float]:
        """(S,) of this process -> each entry's largest over all processes (NaN if any is), and seconds in transit.

        Raises:
            WorkerLostError: another process did not answer in time.
        """

    @contextlib.contextmanager
    def noticing_loss(self, when: str = "") -> Iterator[None]:
        """Report in one line that another process does not answer. `when`: begins the line.

        Raises:
            WorkerLostError: another process did not answer in time.
        """
        yield

    @abstractmethod
    def gather(self, state: Any) -> list[Any]:
        """Every process's `state`, in rank order; in a simulation a list of one."""

    def gather_rows(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows (L, …) of the local workers, on the CPU -> (M, …) of all, by name."""
        states = self.gather(rows)
        return {name: torch.cat([state[name] for state in states]) for name in rows}
