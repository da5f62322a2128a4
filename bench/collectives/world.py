"""Where the workers run: all in this process, or one in each of M processes.

Both worlds run the same round. They differ in the collective that carries messages, and agree to the last bit.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.collectives.transit import Transit


class World(ABC):
    """All M workers, as seen from this process.

    Attributes:
        size: M.
        local_ranks: the ranks of the workers in this process.
        asks: what this process asks of all with its next report: flags END and SAVE.
    """

    size: int
    local_ranks: range
    asks: int = 0

    @abstractmethod
    def agreed(self, asks: int) -> int:
        """The flags that any process has, in every process. All processes must call it."""

    @abstractmethod
    def maximum(self, offered: Tensor) -> tuple[Tensor, Transit]:
        """(S,) of this process -> each entry's largest over all processes (NaN if any is), and what that took.

        Its seconds are those of waiting: whoever has computed faster waits for the others here.

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
