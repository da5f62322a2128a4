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

from bench.collectives.world import World
from bench.errors import NonFiniteError, WorkerLostError


class ProcessWorld(World):
    """One worker per process, over the default process group: gloo on CPUs, NCCL on GPUs."""

    def __init__(self, rank: int, size: int, device: torch.device, timeout: timedelta) -> None:
        self.size = size
        self.local_ranks = range(rank, rank + 1)
        self.device = device
        self.timeout = timeout

    def all_gather(self, row: np.ndarray) -> np.ndarray:
        """(1, n) float64 of this process -> (M, n) of all, in rank order."""
        own = torch.from_numpy(row).to(self.device)
        table = own.new_empty(self.size, own.shape[1])
        dist.all_gather(list(table.split(1)), own)
        return table.cpu().numpy()

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
            if isinstance(error, WorkerLostError | NonFiniteError):  # what is told already, or is no loss
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
