"""One process per worker, over the default process group: gloo on CPUs, NCCL on GPUs."""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from bench.collectives.report import Report
from bench.collectives.world import Exchange, World
from bench.errors import WorkerLostError
from bench.wire.message import Message


class ProcessWorld(World):
    """One worker per process, over the default process group: gloo on CPUs, NCCL on GPUs.

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
            dist.barrier()  # so that waiting for slower workers does not count as transit
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
