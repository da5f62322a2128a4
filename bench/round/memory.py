"""How much memory a cohort takes, foretold from what its parts declare."""

from collections.abc import Iterable

from torch import Tensor

from bench.algorithm import Algorithm
from bench.collectives.world import World
from bench.errors import InputError
from bench.gradients.layout import Layout
from bench.kernels.memory import free_bytes
from bench.round.codes import Codes
from bench.round.server import Server
from bench.round.workers import Workers


def foretold_bytes(algorithm: Algorithm, world: World, layout: Layout, engine: str = "auto") -> dict[str, int]:
    """Bytes that the workers of this process and their server take at least, by what they are for.

    Not counted are the module, what a joint pass keeps, and parameters of past rounds, of which lazy rules keep as many
    as there are different rounds of last uploads.

    Args:
        algorithm: the recipe.
        world: where the workers run.
        layout: of the parameters.
        engine: how gradients are computed. The trial of "auto" takes a row a worker before all else is written.
    """
    segments, vector, num_local = layout.segments(algorithm.granularity), layout.vector, len(world.local_ranks)
    one = Workers(algorithm, None, [0], world.size, segments, vector, seed=0)
    message = _nbytes(Codes(algorithm, segments, vector).uploads.tensors.values())
    gradients = num_local * vector.nbytes
    found = {
        "errors and momenta": num_local * one.kept.nbytes,
        "the upload rule": num_local * _nbytes(one.past.memory.values()),
    }
    if not algorithm.sends_gradients:
        found["messages"] = num_local * message
        if one.keeps_rows:
            found["inputs of the compressor"] = gradients
    if Server.keeps_uploads(algorithm):
        found["last uploads"] = world.size * message
    if engine in ("loop", "vmap"):
        found["gradients"] = gradients
    elif engine == "auto" and gradients > sum(found.values()):
        found = {"gradients of the trial of engines": gradients}
    return {name: num_bytes for name, num_bytes in found.items() if num_bytes}


def refuse_more_than_free(algorithm: Algorithm, world: World, layout: Layout, engine: str) -> None:
    """Raise InputError if the cohort cannot fit into what is free."""
    found, free = foretold_bytes(algorithm, world, layout, engine), free_bytes(layout.vector.device)
    if (needed := sum(found.values())) > free:
        parts = ", ".join(f"{name} {num_bytes / 1e9:.3g} GB" for name, num_bytes in found.items())
        raise InputError(
            f"workers: {world.size}; they take at least {needed / 1e9:.3g} GB ({parts}), {free / 1e9:.3g} GB are free"
        )


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)
