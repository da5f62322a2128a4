"""All workers in this process."""

from typing import Any

from torch import Tensor

from bench.collectives.report import Report
from bench.collectives.world import Exchange, World
from bench.wire.message import Message


class SimulatedWorld(World):
    """All M workers in this process. Nothing is sent or encoded: the number of bits is known without encoding."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.local_ranks = range(size)

    def exchange(self, report: Report, message: Message | None, schema: Message, round: int) -> Exchange:
        return Exchange(report, message, 0.0)

    def maximum(self, offered: Tensor) -> tuple[Tensor, float]:
        return offered, 0.0

    def gather(self, state: Any) -> list[Any]:
        return [state]
