"""Messages whose vectors cannot be cut are added up in slices of their numbers: the factors of low-rank matrices."""

import numpy as np

from bench.collectives.collective import Dense, Exchange, Schemas, Serve, Served, refuse_overflow
from bench.collectives.processes import ProcessWorld
from bench.collectives.report import Report
from bench.collectives.sharded import Sharded
from bench.collectives.whole import Whole
from bench.wire.added import AddedUp
from bench.wire.dense import DenseMessage
from bench.wire.message import Message


class Summed(Whole):
    """Every worker adds up a slice of all messages' numbers, in rank order; then all workers play the whole server.

    What "sharded" means for messages of low rank.

    Args:
        world: the processes.
        dim: d.
    """

    name = "sharded"

    def __init__(self, world: ProcessWorld, dim: int) -> None:
        super().__init__(world, dim)
        self._by_size: dict[int, tuple[Sharded, Dense]] = {}

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        assert message is not None, "every worker uploads"
        tensors = message.tensors
        values = tensors["values"]
        size = values.shape[1]
        if size not in self._by_size:
            self._by_size[size] = Sharded(self.world, size), Dense(values.new_zeros(size))
        sharded, both_ways = self._by_size[size]
        crossed = sharded.exchange(report, DenseMessage(values), both_ways, _add_up, round)
        total = schemas.uploads.with_tensors({**tensors, "values": crossed.answer.dense()})
        served = serve(crossed.report.uploaded, AddedUp(total, self.world.size))
        refuse_overflow(served.finite, [], round)
        return Exchange(crossed.report, served.answer, crossed.transit)


def _add_up(uploaded: np.ndarray, messages: Message | None) -> Served:
    assert messages is not None
    return Served(DenseMessage(messages.sum()[None]), True, [])
