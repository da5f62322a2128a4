"""Replays recorded gradients between real processes, so that the network is what is timed; for scripts/testbed.py."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bench.collectives.processes import ProcessWorld
from bench.gradients.engines.loop import DenseGradients
from bench.gradients.layout import Layout
from bench.recipes import load_recipe
from bench.round.cohort import Cohort
from bench.round.spent import Spent
from bench.suite.models.mlp import mlp
from bench.suite.scripts.bare import keep_quiet

WARM_UP = 5


def replay(recorded: Tensor, recipe: str, collective: str, rounds: int) -> dict[str, Any]:
    """Median milliseconds of rounds of a recipe, and what they cost. `recorded`: (T, d), this worker's gradients."""
    layout = Layout(mlp().named_parameters())
    algorithm = load_recipe(recipe)
    algorithm = algorithm.settled
    world = ProcessWorld(dist.get_rank(), dist.get_world_size(), torch.device("cpu"), timedelta(minutes=5))
    cohort = Cohort(algorithm, world, layout, collective=collective)
    spent, number = Spent(cohort.ledger), 0

    def past(rows: Tensor, _: Any) -> DenseGradients:
        return DenseGradients(torch.ones(1), recorded[None, number - 1])

    def one() -> None:
        nonlocal number
        number = (number + 1) % len(recorded)
        with spent.compressing():
            direction, _ = cohort.round(
                layout.vector, DenseGradients(torch.ones(1), recorded[None, number]), past, 0.05, 0
            )
        layout.vector.sub_(direction, alpha=0.05)

    for _ in range(WARM_UP):
        one()
    ledger = cohort.ledger
    per_round = ("waited_s", "measured_s", "compression_s")
    before, counted = {name: getattr(ledger, name) for name in per_round}, ledger.rounds
    took = timed(one, rounds)
    assert ledger.traffic is not None
    return {
        "collective": cohort.collective.name,
        **took,
        **{name: 1e3 * (getattr(ledger, name) - then) / (ledger.rounds - counted) for name, then in before.items()},
        "rounds": ledger.rounds,
        "traffic": vars(ledger.traffic),
    }


class Replayed(nn.Module):
    """A module whose gradient is given: its loss is ⟨w, g⟩."""

    def __init__(self) -> None:
        super().__init__()
        self.model = mlp()

    def forward(self, gradient: Tensor) -> Tensor:
        parameters = list(self.model.parameters())
        pieces = gradient.split([p.numel() for p in parameters])
        total = gradient.new_zeros(())
        for p, piece in zip(parameters, pieces, strict=True):
            total = total + torch.dot(p.flatten(), piece)
        return total


def replay_ddp(recorded: Tensor, rounds: int) -> dict[str, Any]:
    """The same through PyTorch's DDP."""
    model = DistributedDataParallel(Replayed())
    number = 0

    def one() -> None:
        nonlocal number
        number = (number + 1) % len(recorded)
        model.zero_grad()
        model(recorded[number]).backward()

    return {"collective": "ring", **timed(one, rounds), "compression_s": own_ms(recorded)}


def own_ms(recorded: Tensor) -> float:
    """What the same takes without others: to write the gradient."""
    model = Replayed()

    def one() -> None:
        model.zero_grad()
        model(recorded[0]).backward()

    return timed(one, 10)["ms"]


def timed(one: Callable[[], None], rounds: int) -> dict[str, Any]:
    """The median milliseconds of a round, and the quartiles around it."""
    laps = []
    for _ in range(WARM_UP + rounds):
        started = time.perf_counter()
        one()
        laps.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.percentile(laps[WARM_UP:], (25, 50, 75)).tolist()
    return {"ms": median, "low_ms": low, "high_ms": high}


def main(plan: Mapping[str, Any]) -> None:
    """Run the contenders of a plan, one after another."""
    keep_quiet()
    dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    rank = dist.get_rank()
    recorded = torch.from_numpy(np.load(Path(plan["folder"]) / f"gradients{rank}.npy"))
    found = {}
    for name in plan["contenders"]:
        dist.barrier()
        recipe, _, collective = name.partition(" ")
        if recipe == "ddp":
            found[name] = replay_ddp(recorded, plan["rounds"])
        else:
            found[name] = replay(recorded, recipe, collective or "auto", plan["rounds"])
        if rank == 0:
            print(name, flush=True)
    if rank == 0:
        (Path(plan["folder"]) / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(json.loads(Path(sys.argv[1]).read_text()))
