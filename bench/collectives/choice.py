"""Which collective carries a recipe's messages."""

from collections.abc import Callable
from typing import Literal, get_args

from bench.algorithm import Algorithm
from bench.collectives.allreduce import AllReduce
from bench.collectives.collective import Collective, Schemas
from bench.collectives.gather import Gather
from bench.collectives.processes import ProcessWorld
from bench.collectives.sharded import Sharded
from bench.collectives.simulated import Simulated
from bench.collectives.world import World
from bench.errors import InputError

CollectiveName = Literal["auto", "sharded", "gather", "allreduce"]
BY_NAME: dict[str, Callable[[ProcessWorld, int], Collective]] = {
    "sharded": Sharded,
    "gather": Gather,
    "allreduce": AllReduce,
}
STEP_S, BANDWIDTH_BPS = 1e-3, 1e9  # of an exchange between processes: what "auto" goes by, alike in all of them


def make_collective(name: str, world: World, algorithm: Algorithm, schemas: Schemas, dim: int) -> Collective:
    """The collective of that name; in a simulation none is needed.

    Args:
        name: "sharded", "gather", "allreduce", or "auto" for that of the first two which should take less time.
        world: where the workers are.
        algorithm: the recipe.
        schemas: what its messages and answers look like.
        dim: d.

    Raises:
        InputError: no such collective, or one that cannot carry the recipe.
    """
    if name not in get_args(CollectiveName):
        raise InputError(f"collective: {name!r}; one of {', '.join(get_args(CollectiveName))} is needed")
    if not isinstance(world, ProcessWorld):
        return Simulated(dim)
    cuts = schemas.uploads.cuttable and schemas.answers.cuttable and algorithm.entrywise
    if name == "sharded" and not cuts:
        raise InputError(f"collective: 'sharded'; it cannot cut what {algorithm.name} sends, gather can carry it")
    if name == "allreduce" and not algorithm.adds_up:
        others = "sharded and gather" if cuts else "gather"
        raise InputError(
            f"collective: 'allreduce'; it cannot add up what {algorithm.name} sends, {others} can carry it"
        )
    if name == "auto":
        sent, answer, others = int(schemas.uploads.num_bits), int(schemas.answers.num_bits), world.size - 1
        gather_s = STEP_S + others * sent / BANDWIDTH_BPS
        steps = 2 if schemas.answers.fixed_size else 3  # sizes that vary are told first
        sharded_s = steps * STEP_S + others / world.size * (sent + answer) / BANDWIDTH_BPS
        name = "sharded" if cuts and sharded_s < gather_s else "gather"
    return BY_NAME[name](world, dim)
