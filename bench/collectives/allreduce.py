"""Messages are added up on their way, by an all-reduce of the process group's backend."""

import time

import numpy as np
import torch.distributed as dist

from bench.collectives.collective import Exchange, Schemas, Serve, refuse_overflow
from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.collectives.whole import Whole
from bench.wire.added import AddedUp
from bench.wire.dense import DenseMessage
from bench.wire.message import Message


class AllReduce(Whole):
    """For messages of floats whose sum is a message, answered as one sum: what DDP does.

    The backend chooses the order of the additions, and adds in the messages' own format, 16 bits for halves. Therefore
    the bits are not those of the simulation, but they are the same in every process. Bytes are those of a ring, which
    moves 2 (M − 1)/M of a message into and out of every worker; gloo and NCCL may use trees for short ones. The sum
    begins to travel with the reports; `measured_s` is what is left of it after their exchange. On GPUs, where waiting
    for a sum does not block the process, its seconds are those of the reports.
    """

    name = "allreduce"

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        assert message is not None, "every worker uploads"
        tensors, size = message.tensors, self.world.size
        values = tensors["values"]
        if isinstance(message, DenseMessage):  # a vector that its worker may keep
            values = values.clone()
        num_bytes = values.nbytes
        report = report._replace(num_bytes=np.array([num_bytes]))
        with self.world.noticing_loss(f"round {round}: "):
            pending = dist.all_reduce(values, async_op=True)  # while the reports travel
            assert pending is not None
            everyone, _, told = self.world.exchange_reports(report)
            started = time.perf_counter()
            pending.wait()
            measured_s = time.perf_counter() - started
            everyone.refuse(round)
        moved = np.full(size, 2 * (size - 1) * -(-num_bytes // size))
        total = schemas.uploads.with_tensors({**tensors, "values": values})
        served = serve(everyone.uploaded, AddedUp(total, size))
        refuse_overflow(served.finite, [], round)
        return Exchange(everyone, served.answer, told + Transit(0.0, measured_s, moved, moved))
