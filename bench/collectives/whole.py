"""What the collectives share in which every process plays the whole server."""

from bench.collectives.collective import Collective
from bench.collectives.processes import ProcessWorld


class Whole(Collective):
    """Every process serves all entries, and finds the same answer.

    Args:
        world: the processes.
        dim: d.
    """

    def __init__(self, world: ProcessWorld, dim: int) -> None:
        self.world = world
        self.bounds = 0, dim
        self.slices = [self.bounds]
