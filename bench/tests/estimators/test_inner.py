"""Local steps with the module's own optimizer: what DiLoCo's equations give, in both worlds; they resume."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from bench import LocalSteps
from bench.algorithm import Algorithm
from bench.compressors import Identity
from bench.errors import InputError
from bench.estimators.local_sgd import LocalSGD
from bench.laws.kills import assert_goes_on
from bench.laws.toys import Normed, Toy, counted, flat, loader, toy_data, train
from bench.laws.worlds import M, run_processes
from bench.loops.plain import CompressedAllReduce
from bench.rules import LASGWK2
from bench.suite.scripts.bare import forked
from bench.tests.found import RECIPES

DILOCO = RECIPES["diloco"]
CLIP = 0.5
LENGTH = 40


class Modern(Toy):
    """AdamW, clipped, under a schedule that counts steps."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, LENGTH)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Dropping(Modern):
    def __init__(self) -> None:
        super().__init__(dropout=0.3)


def with_steps(**changes: Any) -> Algorithm:
    steps = DILOCO.local_steps
    assert steps is not None
    return replace(DILOCO, local_steps=replace(steps, **changes))


def reference(steps: LocalSteps, rounds: int, workers: int = 4) -> Tensor:
    """Douillard et al. 2023, Algorithm 1, from its equations: the parameters after so many rounds."""
    torch.manual_seed(3)
    shared = Modern()
    copies = [deepcopy(shared) for _ in range(workers)]
    inner = [copy.configure_optimizers() for copy in copies]
    velocity = torch.zeros_like(flat(shared))
    batches = iter(loader(toy_data(), workers, range(workers), 2 * steps.num_steps))
    for _ in range(rounds):
        batch, before = next(batches), flat(shared)
        for m, (copy, ((optimizer,), (schedule,))) in enumerate(zip(copies, inner, strict=True)):
            copy.load_state_dict(shared.state_dict())
            own = [part.chunk(workers)[m].chunk(steps.num_steps) for part in batch]
            for part in zip(*own, strict=True):
                optimizer.zero_grad()
                copy.training_step(part).backward()
                torch.nn.utils.clip_grad_norm_(copy.parameters(), CLIP)
                optimizer.step()
                schedule["scheduler"].step()
        delta = before - torch.stack([flat(copy) for copy in copies]).mean(dim=0)
        velocity = steps.outer_momentum * velocity + delta
        moved = before - steps.outer_lr * (delta + steps.outer_momentum * velocity)
        torch.nn.utils.vector_to_parameters(moved, shared.parameters())
    return flat(shared)


@pytest.mark.parametrize("changes", [{}, {"outer_lr": 1.0, "outer_momentum": 0.0}, {"num_steps": 5}], ids=str)
def test_it_is_diloco(changes: dict[str, Any]) -> None:
    recipe = with_steps(**changes)
    steps = recipe.local_steps
    assert steps is not None
    ours = train(recipe, Modern, rounds=8, batch_size=2 * steps.num_steps, gradient_clip_val=CLIP)
    torch.testing.assert_close(ours.weights, reference(steps, 8))
    assert ours.ledger["num_backwards"] == 8 * 4 * steps.num_steps
    assert ours.ledger["uplink_bits"] == train("sgd", rounds=8).ledger["uplink_bits"]


def test_one_worker_alone_trains_as_without_us() -> None:
    """Two rounds of five steps are ten steps; the optimizer's state and the schedule go on between rounds."""
    local = train(with_steps(num_steps=5, outer_lr=1.0, outer_momentum=0.0), Modern, workers=1, rounds=4, batch_size=20)
    torch.testing.assert_close(local.weights, train("sgd", Modern, workers=1, rounds=20, batch_size=4).weights)


@pytest.mark.parametrize("engine", ["loop", "joint", "vmap"])
def test_every_engine_takes_them(engine: str) -> None:
    run = train("diloco", Normed, rounds=12, engine=engine, batch_size=8)
    assert run.module.network[1].num_batches_tracked == 24
    loop = train("diloco", Normed, rounds=12, engine="loop", batch_size=8)
    torch.testing.assert_close(run.weights, loop.weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.local_steps])
def test_simulated_equals_real(name: str, tmp_path: Path) -> None:
    simulated = train(name, Dropping, workers=M, gradient_clip_val=CLIP)
    collective = "sharded" if RECIPES[name].compressor == Identity() else "auto"
    options = {"trainer_options": {"gradient_clip_val": CLIP}, "collective": collective}
    for process in run_processes(tmp_path, RECIPES[name], Dropping, **options):
        assert torch.equal(process["weights"], simulated.weights)
        assert counted(process["ledger"]) == counted(simulated.ledger)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.local_steps])
def test_killed_and_resumed(name: str, tmp_path: Path) -> None:
    assert_goes_on(name, [31], tmp_path / "saved.ckpt", max_epochs=2, module=Dropping, gradient_clip_val=CLIP)


def _in_a_plain_loop(rank: int) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=1)
    with pytest.raises(InputError, match="diloco; local steps need a Trainer"):
        CompressedAllReduce(Toy(), "diloco")
    dist.destroy_process_group()


def test_what_cannot_be_meant() -> None:
    for changes, told in (
        ({"num_steps": 0}, "num_steps: 0; an integer, at least 1"),
        ({"outer_lr": 0}, "outer_lr: 0; a finite number above 0"),
        ({"outer_momentum": 1}, r"outer_momentum: 1; a number in \[0, 1\)"),
        ({"apart": True}, "feedback: NoFeedback; workers apart differ by the error kept, ErrorFeedback is needed"),
    ):
        with pytest.raises(InputError, match=told):
            with_steps(**changes)
    with pytest.raises(InputError, match="rule: LASGWK2; a second pass would step"):
        replace(DILOCO, rule=LASGWK2())
    with pytest.raises(InputError, match="estimator: LocalSGD; diloco takes local steps itself"):
        train("diloco", estimator=LocalSGD(2))
    with pytest.raises(InputError, match="accumulate_grad_batches: 2; with an estimator or local steps 1"):
        train("diloco", accumulate_grad_batches=2)
    with pytest.warns(UserWarning, match="batch of 16 samples: 4 left out, so that 4 workers and 3 steps get 3 each"):
        train(with_steps(num_steps=3), rounds=2)
    forked(1, _in_a_plain_loop)

    class Seldom(Modern):
        def configure_optimizers(self) -> Any:
            (optimizer,), (scheduler,) = super().configure_optimizers()
            return [optimizer], [{**scheduler, "frequency": 2}]

    with pytest.raises(InputError, match="frequency: 2; schedulers follow every local step"):
        train("diloco", Seldom)

    class Sparse(Toy):
        def configure_optimizers(self) -> Any:
            return torch.optim.SparseAdam(list(self.parameters()))

    with pytest.raises(InputError, match="optimizer: SparseAdam; local steps need one"):
        train("diloco", Sparse)
