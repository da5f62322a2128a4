"""Where the workers live: all in this process, or one in each of M processes.

Both worlds run the same round and differ only in `exchange`. It returns the messages of all workers in rank order,
the same in every process; from there on every process computes the same bits.
"""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from bench.errors import WorkerLostError
from bench.ledger import Report
from bench.message import Message


@dataclass(frozen=True)
class Exchange:
    """What one round brought: M workers' reports, the uploaders' messages in rank order, and the time in transit."""

    report: Report
    messages: Message | None
    measured_s: float


class World(ABC):
    """Where all M workers are, seen from this process.

    Attributes:
        size: M.
        local_ranks: the ranks of the workers in this process.
    """

    size: int
    local_ranks: range

    @abstractmethod
    def exchange(self, report: Report, message: Message | None, schema: Message, round: int) -> Exchange:
        """Swap reports and messages with all other processes.

        Args:
            report: of the local workers.
            message: of the local uploaders; None if there are none, or if a report says broken.
            schema: a message like those that others will send.
            round: for error messages.

        Raises:
            WorkerLostError: another process did not answer in time.
        """

    @abstractmethod
    def maximum(self, offered: Tensor) -> tuple[Tensor, float]:
        """(S,) of this process -> the largest of all processes' (NaN if one is), and the seconds in transit.

        Raises:
            WorkerLostError: another process did not answer in time.
        """

    @contextlib.contextmanager
    def noticing_loss(self, when: str = "") -> Iterator[None]:
        """Tell in one line of a process that does not answer. `when`: begins it.

        Raises:
            WorkerLostError: another process did not answer in time.
        """
        yield

    @abstractmethod
    def gather(self, state: Any) -> list[Any]:
        """Every process's `state`, in rank order; in a simulation just the one."""

    def gather_rows(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows (L, …) of the local workers, on the CPU -> (M, …) of all, by name."""
        states = self.gather(rows)
        return {name: torch.cat([state[name] for state in states]) for name in rows}


class SimulatedWorld(World):
    """All M workers in this process. Nothing is encoded: what the bytes would be is known without them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.local_ranks = range(size)

    def exchange(self, report: Report, message: Message | None, schema: Message, round: int) -> Exchange:
        return Exchange(report, message, 0.0)

    def maximum(self, offered: Tensor) -> tuple[Tensor, float]:
        return offered, 0.0

    def gather(self, state: Any) -> list[Any]:
        return [state]


class ProcessWorld(World):
    """One worker a process, over the default process group: gloo on CPUs, NCCL on GPUs.

    A worker that uploads broadcasts its bytes; one that skips sends only its report.
    """

    def __init__(self, rank: int, size: int, device: torch.device, timeout: timedelta) -> None:
        self.size = size
        self.local_ranks = range(rank, rank + 1)
        self.device = device
        self.timeout = timeout

    def exchange(self, report: Report, message: Message | None, schema: Message, round: int) -> Exchange:
        payload = np.empty(0, np.uint8) if message is None else message.encode(0)
        own = torch.from_numpy(report._replace(num_bytes=np.array([len(payload)])).pack()).to(self.device)
        table = own.new_empty(self.size, own.shape[1])
        with self.noticing_loss(f"round {round}: "):
            dist.all_gather(list(table.split(1)), own)
            everyone = Report.unpack(table.cpu().numpy())
            if everyone.broken.any() or not everyone.agrees():
                return Exchange(everyone, None, 0.0)
            started = time.perf_counter()
            arrived = self._broadcast(payload, everyone)
            measured_s = time.perf_counter() - started
        return Exchange(everyone, schema.decode(arrived) if arrived else None, measured_s)

    def _broadcast(self, payload: np.ndarray, everyone: Report) -> list[np.ndarray]:
        """The bytes of every uploader, in rank order."""
        buffers = []
        for rank in np.flatnonzero(everyone.uploaded).tolist():
            mine = rank == self.local_ranks[0]
            buffer = (
                torch.from_numpy(payload) if mine else torch.empty(int(everyone.num_bytes[rank]), dtype=torch.uint8)
            )
            buffers.append((rank, buffer.to(self.device)))
        pending = [dist.broadcast(buffer, src=rank, async_op=True) for rank, buffer in buffers]
        for work in pending:
            assert work is not None
            work.wait()
        return [buffer.cpu().numpy() for _, buffer in buffers]

    def maximum(self, offered: Tensor) -> tuple[Tensor, float]:
        table = offered.new_empty(self.size, len(offered))
        with self.noticing_loss():
            dist.barrier()  # so that nobody's computing counts as transit
            started = time.perf_counter()
            dist.all_gather(list(table.split(1)), offered[None])
        return table.amax(dim=0), time.perf_counter() - started

    @contextlib.contextmanager
    def noticing_loss(self, when: str = "") -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, WorkerLostError):
                raise
            waited = self.timeout.total_seconds()
            raise WorkerLostError(
                f"{when}worker {self.local_ranks[0]} lost another worker (timeout {waited:g} s): {error}"
            ) from error

    def gather(self, state: Any) -> list[Any]:
        states: list[Any] = [None] * self.size
        with self.noticing_loss():
            dist.all_gather_object(states, state)
        return states
