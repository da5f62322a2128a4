"""Which collective carries a recipe's messages."""

from typing import Literal, get_args

from bench.algorithm import Algorithm
from bench.collectives.collective import Collective, Schemas
from bench.collectives.gather import Gather
from bench.collectives.processes import ProcessWorld
from bench.collectives.sharded import Sharded
from bench.collectives.simulated import Simulated
from bench.collectives.world import World
from bench.errors import InputError

CollectiveName = Literal["auto", "sharded", "gather"]
STEP_S, BANDWIDTH_BPS = 1e-3, 1e9  # of an exchange between processes: what "auto" goes by, alike in all of them


def make_collective(name: str, world: World, algorithm: Algorithm, schemas: Schemas, dim: int) -> Collective:
    """The collective of that name; in a simulation none is needed.

    Args:
        name: "sharded", "gather", or "auto" for the one that is expected to take less time.
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
    if name == "auto":
        sent, answer, others = int(schemas.uploads.num_bits), int(schemas.answers.num_bits), world.size - 1
        gather_s = STEP_S + others * sent / BANDWIDTH_BPS
        sharded_s = 3 * STEP_S + others / world.size * (sent + answer) / BANDWIDTH_BPS
        name = "sharded" if cuts and sharded_s < gather_s else "gather"
    return (Sharded if name == "sharded" else Gather)(world, dim)
