"""Messages whose vectors cannot be cut are added up in slices of their numbers: the factors of low-rank matrices."""

import numpy as np

from bench.collectives.collective import Collective, Exchange, Schemas, Serve, Served, refuse_overflow
from bench.collectives.processes import ProcessWorld
from bench.collectives.report import Report
from bench.collectives.sharded import Sharded
from bench.wire.added import AddedUp
from bench.wire.dense import DenseMessage
from bench.wire.message import Message


class Summed(Collective):
    """Every worker adds up a slice of all messages' numbers, in rank order; then all workers play the whole server.

    What "sharded" means for messages of low rank.

    Args:
        world: the processes.
        dim: d.
    """

    name = "sharded"

    def __init__(self, world: ProcessWorld, dim: int) -> None:
        self.world = world
        self.bounds = 0, dim
        self.slices = [self.bounds]
        self._by_size: dict[int, Sharded] = {}
        self._numbers: dict[int, Numbers] = {}

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        assert message is not None, "every worker uploads"
        tensors = message.tensors
        values = DenseMessage(tensors["values"])
        size = values.values.shape[1]
        sharded = self._by_size.setdefault(size, Sharded(self.world, size))
        if size not in self._numbers:
            self._numbers[size] = Numbers(DenseMessage(values.values.new_zeros(1, size)))
        crossed = sharded.exchange(report, values, self._numbers[size], _add_up, round)
        total = schemas.uploads.with_tensors({**tensors, "values": crossed.answer.dense()})
        served = serve(crossed.report.uploaded, AddedUp(total, self.world.size))
        refuse_overflow(served.finite, [], round)
        return Exchange(crossed.report, served.answer, crossed.transit)


class Numbers:
    """Both ways as they are. `values`: one row such as workers send."""

    def __init__(self, values: DenseMessage) -> None:
        self.uploads = self.answers = values


def _add_up(uploaded: np.ndarray, messages: Message | None) -> Served:
    assert messages is not None
    return Served(DenseMessage(messages.sum()[None]), True, [])
