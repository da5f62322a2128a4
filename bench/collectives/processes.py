"""One process per worker, over the default process group: gloo on CPUs, NCCL on GPUs."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from threading import Timer
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from bench.collectives.report import Report
from bench.collectives.roll import absent
from bench.collectives.transit import Transit
from bench.collectives.world import World
from bench.errors import DamagedError, NonFiniteError, WorkerLostError
from bench.wire.floats import as_bytes, from_bytes

LONG = 2**16  # bytes


class ProcessWorld(World):
    """One worker per process, over the default process group: gloo on CPUs, NCCL on GPUs.

    Attributes:
        patience: ends this process if it does not come so far; None if it was not told to.
    """

    patience: Timer | None = None

    def __init__(self, rank: int, size: int, device: torch.device, timeout: timedelta) -> None:
        self.size = size
        self.rank = rank
        self.local_ranks = range(rank, rank + 1)
        self.device = device
        self.timeout = timeout

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Write rank 0's values to these tensors, of which every process has the same."""
        with self.noticing_loss():
            for tensor in tensors:
                if tensor.layout is torch.strided:
                    dist.broadcast(tensor, src=0)
                else:
                    content = [tensor]
                    dist.broadcast_object_list(content, src=0)
                    tensor.copy_(content[0])

    def swap(self, outgoing: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
        """Bytes for every rank -> those of every rank for this one.

        They go from each process to each other directly: on gloo this takes half as long as its all-gather and
        all-to-all. Short ones go at once. Long ones go in steps, in the k-th to the k-th process after this one, so
        that each link carries one each way at a time: on links of 100 Mbit/s, all at once take a fifth longer.

        Args:
            outgoing: uint8, by rank.
            sizes: how many bytes come from each rank.
        """
        incoming = [torch.empty(size, dtype=torch.uint8, device=self.device) for size in sizes]
        there = {id(piece): torch.from_numpy(piece).to(self.device) for piece in outgoing if len(piece)}
        steps = []
        for step in range(1, self.size):
            to, sender, operations = (self.rank + step) % self.size, (self.rank - step) % self.size, []
            if sizes[sender]:
                operations.append((dist.irecv, incoming[sender], sender))
            if len(outgoing[to]):
                operations.append((dist.isend, there[id(outgoing[to])], to))
            steps.append(operations)
        if max(map(len, outgoing)) < LONG:
            steps = [[operation for operations in steps for operation in operations]]
        if self.device.type == "cpu":
            for operations in steps:
                _wait([start(tensor, rank) for start, tensor, rank in operations])
        elif together := [dist.P2POp(*each) for operations in steps for each in operations]:
            _wait(dist.batch_isend_irecv(together))  # NCCL wants them together; on gloo this takes twice as long
        return [outgoing[rank] if rank == self.rank else t.cpu().numpy() for rank, t in enumerate(incoming)]

    def all_gather(self, row: np.ndarray) -> np.ndarray:
        """(n,) of this process -> (M, n) of all, in rank order."""
        payload = row.view(np.uint8)
        return np.stack(self.swap([payload] * self.size, [len(payload)] * self.size)).view(row.dtype)

    def exchange_reports(self, report: Report, sizes: Sequence[int] = ()) -> tuple[Report, np.ndarray, Transit]:
        """This process's report -> those of all, the sizes that all tell with them, and what the exchange took.

        Args:
            report: of this process's worker.
            sizes: (m,) bytes of pieces that go to different workers -> (M, m).

        Raises:
            DamagedError: a process received bytes that are no message. In every process with its reason.
        """
        (own,), started = report.pack(), time.perf_counter()
        told = np.concatenate([own, sizes])
        table = self.all_gather(told)
        waited_s = time.perf_counter() - started
        everyone, others = Report.unpack(table[:, : len(own)]), table[:, len(own) :].astype(int)
        if self.patience is not None:
            self.patience.cancel()
        self.end_if_damaged(bool(everyone.damaged.any()), None)
        return everyone, others, Transit.to_all(np.full(self.size, told.nbytes), waited_s)

    def agreed(self, asks: int) -> int:
        with self.noticing_loss():
            return int(np.bitwise_or.reduce(self.all_gather(np.array([asks])), axis=None))

    def end_if_damaged(self, seen: bool, reason: str | None) -> None:
        """End all processes with the reason of one that has one. All must call it, and agree on whether it was seen.

        Raises:
            DamagedError: it was seen.
        """
        if seen:
            raise DamagedError(next((told for told in self.gather(reason) if told is not None), "a damaged report"))

    @contextlib.contextmanager
    def alarming(self, report: Report, num_sizes: int = 0) -> Iterator[None]:
        """If bytes turn out to be damaged inside, where others may not notice, tell them with their next reports.

        Where their next exchange is another one, such as an evaluation's, they end after the timeout instead.

        Args:
            report: of this process's worker, in this round.
            num_sizes: how many sizes go with a report.
        """
        try:
            yield
        except DamagedError as error:
            alarm = report._replace(damaged=np.array([True]))
            with contextlib.suppress(RuntimeError):  # also of others that have no next round
                self.all_gather(np.concatenate([alarm.pack()[0], np.zeros(num_sizes)]))
                self.gather(str(error))
            raise

    def maximum(self, offered: Tensor) -> tuple[Tensor, Transit]:
        own, started = as_bytes(offered), time.perf_counter()
        with self.noticing_loss():
            table = self.all_gather(own)
        transit = Transit.to_all(np.full(self.size, own.nbytes), waited_s=time.perf_counter() - started)
        return torch.stack([from_bytes(row, offered) for row in table]).amax(dim=0), transit

    @contextlib.contextmanager
    def noticing_loss(self, when: str = "") -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, WorkerLostError | NonFiniteError | DamagedError):  # told already, or no loss
                raise
            lost = " and ".join(f"worker {rank}" for rank in absent(self.rank, self.size)) or "another worker"
            told = f"{when}worker {self.rank} lost {lost} (timeout {self.timeout.total_seconds():g} s): {error}"
            raise WorkerLostError(told) from error

    def gather(self, state: Any) -> list[Any]:
        states: list[Any] = [None] * self.size
        with self.noticing_loss():
            dist.all_gather_object(states, state)
        return states


def _wait(pending: Sequence[Any]) -> None:
    for work in pending:
        work.wait()
