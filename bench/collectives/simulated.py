"""All workers in this process."""

from typing import Any

from torch import Tensor

from bench.collectives.collective import Collective, Exchange, Schemas, Serve, refuse_overflow
from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.collectives.world import World
from bench.wire.message import Message


class SimulatedWorld(World):
    """All M workers in this process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.local_ranks = range(size)

    def agreed(self, asks: int) -> int:
        return asks

    def maximum(self, offered: Tensor) -> tuple[Tensor, Transit]:
        return offered, Transit()

    def gather(self, state: Any) -> list[Any]:
        return [state]


class Simulated(Collective):
    """Messages reach the server as objects. Nothing is encoded: the number of bits is known without encoding.

    Args:
        dim: d.
    """

    name = "simulated"

    def __init__(self, dim: int) -> None:
        self.bounds = 0, dim
        self.slices = [self.bounds]

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        report.refuse(round)
        served = serve(report.uploaded, message)
        refuse_overflow(served.finite, served.broken, round)
        return Exchange(report, served.answer, Transit())
