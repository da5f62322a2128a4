"""Every message is sent to everybody, and every process plays the whole server. The answer crosses nothing."""

import time

import numpy as np
import torch
import torch.distributed as dist

from bench.collectives.collective import Collective, Exchange, Schemas, Serve, refuse_overflow
from bench.collectives.processes import ProcessWorld
from bench.collectives.report import Report
from bench.wire.message import Message


class Gather(Collective):
    """Right where M messages are less than a message and an answer, and between two workers.

    Args:
        world: the processes.
        dim: d.
    """

    name = "gather"

    def __init__(self, world: ProcessWorld, dim: int) -> None:
        self.world = world
        self.bounds = 0, dim
        self.slices = [self.bounds]

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        payload = np.empty(0, np.uint8) if message is None else message.encode(0)
        report = report._replace(num_bytes=np.array([len(payload)]))
        with self.world.noticing_loss(f"round {round}: "):
            everyone = Report.unpack(self.world.all_gather(report.pack()))
            everyone.refuse(round)
            started = time.perf_counter()
            arrived = self._broadcast(payload, everyone)
            measured_s = time.perf_counter() - started
        served = serve(everyone.uploaded, schemas.uploads.decode(arrived) if arrived else None)
        refuse_overflow(served.finite, served.broken, round)
        return Exchange(everyone, served.answer, measured_s)

    def _broadcast(self, payload: np.ndarray, everyone: Report) -> list[np.ndarray]:
        """The bytes of every uploader, in rank order."""
        buffers = []
        for rank in np.flatnonzero(everyone.uploaded).tolist():
            mine = rank == self.world.local_ranks[0]
            buffer = (
                torch.from_numpy(payload) if mine else torch.empty(int(everyone.num_bytes[rank]), dtype=torch.uint8)
            )
            buffers.append((rank, buffer.to(self.world.device)))
        pending = [dist.broadcast(buffer, src=rank, async_op=True) for rank, buffer in buffers]
        for work in pending:
            assert work is not None
            work.wait()
        return [buffer.cpu().numpy() for _, buffer in buffers]
