"""Which collective carries a recipe's messages."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.algorithm import Algorithm
from bench.collectives.allreduce import AllReduce
from bench.collectives.collective import Collective, Schemas
from bench.collectives.gather import Gather
from bench.collectives.processes import ProcessWorld
from bench.collectives.sharded import Sharded
from bench.collectives.simulated import Simulated
from bench.collectives.summed import Summed
from bench.collectives.world import World
from bench.compressors import Shortest
from bench.compressors.base import Segments
from bench.errors import InputError
from bench.kernels.noise import Noise

CollectiveName = Literal["auto", "sharded", "gather", "allreduce"]
BY_NAME: dict[str, Callable[[ProcessWorld, int], Collective]] = {
    "sharded": Sharded,
    "gather": Gather,
    "allreduce": AllReduce,
}
STEP_S, BANDWIDTH_BPS = 1e-3, 1e9  # "auto" assumes this network in every process, so that all choose alike


def make_collective(
    name: str, world: World, algorithm: Algorithm, schemas: Schemas, segments: Segments, like: Tensor
) -> Collective:
    """Return the collective of that name; in a simulation, the one that needs no network.

    Args:
        name: "sharded", "gather", "allreduce", or "auto" for that of the first two which should take less time.
        world: where the workers are.
        algorithm: the recipe.
        schemas: what its messages and answers look like.
        segments: the parts that compressors treat separately.
        like: a vector (d,) of the parameters' dtype and device.

    Raises:
        InputError: no such collective, or one that cannot carry the recipe.
    """
    if name not in get_args(CollectiveName):
        raise InputError(f"collective: {name!r}; one of {', '.join(get_args(CollectiveName))} is needed")
    if not isinstance(world, ProcessWorld):
        return Simulated(len(like))
    cuts, sums = cuts_or_sums(algorithm, segments, like)
    if name == "sharded" and not (cuts or sums):
        raise InputError(f"collective: 'sharded'; it cannot cut what {algorithm.name} sends, gather can carry it")
    if name == "allreduce" and not algorithm.adds_up:
        others = "sharded and gather" if cuts or sums else "gather"
        raise InputError(
            f"collective: 'allreduce'; it cannot add up what {algorithm.name} sends, {others} can carry it"
        )
    if name == "auto" and not (cuts or sums):
        name = "gather"
    if name == "auto":
        (sent, answer), others = _expected_bits(algorithm, segments, like, world.size), world.size - 1
        answer = answer if cuts else sent  # the sum
        gather_s = STEP_S + others * sent / BANDWIDTH_BPS
        steps = 2 if schemas.answers.fixed_size else 3  # sizes that vary are told first
        sharded_s = steps * STEP_S + others / world.size * (sent + answer) / BANDWIDTH_BPS
        name = "sharded" if sharded_s < gather_s else "gather"
    return Summed(world, len(like)) if name == "sharded" and not cuts else BY_NAME[name](world, len(like))


def cuts_or_sums(algorithm: Algorithm, segments: Segments, like: Tensor) -> tuple[bool, bool]:
    """Whether a recipe's messages and answers can be cut into slices of the vector, and whether slices of its messages
    can be added up without an answer. Where neither holds, "sharded" cannot carry it."""
    uploads, answers = (part.kinds(segments, like) for part in (algorithm.compressor, algorithm.broadcast))
    cuts = all(message.cuttable for message in (*uploads, *answers)) and algorithm.entrywise
    return cuts, all(message.values_add_up for message in uploads) and algorithm.adds_up


def _expected_bits(algorithm: Algorithm, segments: Segments, like: Tensor, num_workers: int) -> tuple[int, int]:
    """The bits of a message and of an answer: of normal noise, the same in every process."""
    noise = torch.randn(1, len(like), generator=torch.Generator().manual_seed(0)).to(like)
    uplink, downlink = algorithm.compressor.settled, algorithm.broadcast.settled
    sent, answer = (int(c.compress(noise, segments, [Noise(0, 0, 0)]).num_bits) for c in (uplink, downlink))
    return sent, min(answer, num_workers * sent) if isinstance(downlink, Shortest) else answer
