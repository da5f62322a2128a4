"""Every collective gives the simulation's answer bit for bit, whatever kind of message is sent."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning import Trainer
from torch.utils.data import TensorDataset

from bench.adversary import Random
from bench.aggregators import MajorityVote
from bench.algorithm import Algorithm
from bench.collectives.report import Report
from bench.collectives.sharded import UNIT, slice_bounds
from bench.errors import InputError, NonFiniteError
from bench.estimators import SVRG, LocalSGD
from bench.gradients.layout import MatrixSize
from bench.round.state import restore, state_of
from bench.strategies.processes import CompressedDDPStrategy
from bench.tests.found import RANDOM, RECIPES, RULES
from bench.tests.toys import QUIET, Gauged, Toy, flat, loader, toy_data, train
from scripts.bare import forked

M = 3


class Tiny(Toy):
    """Fewer parameters than two slices need."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(20, 3, bias=False)


@dataclass
class Case:
    """A run with one collective."""

    algorithm: Algorithm
    collective: str = "sharded"
    module: Callable[[], lightning.LightningModule] = Toy
    options: dict[str, Any] | None = None

    @property
    def rounds(self) -> int:
        """For lazy rules past round 20, in which a worker that last uploaded in round 9 must upload."""
        return 22 if self.algorithm.rule.adaptive else 6

    def data(self) -> TensorDataset:
        """Return data for one epoch of this many rounds, after which loaders need no state to go on."""
        return toy_data(self.rounds * M * 4)


CASES = {
    **{name: Case(recipe) for name, recipe in RECIPES.items() if name != "powersgd"},
    "powersgd": Case(RECIPES["powersgd"], "gather"),
    "random zeros and ties": Case(RANDOM),
    "random ties": Case(replace(RECIPES["sparse_signsgd"], aggregator=MajorityVote("random"))),
    "half both ways": Case(replace(RECIPES["sparse"], downlink=RECIPES["half"].compressor)),
    **{
        f"sasg-{type(rule).__name__}": Case(replace(RECIPES["sasg"], rule=rule))
        for rule in RULES
        if rule.adaptive and not rule.drafts
    },
    "rescaled": Case(replace(RECIPES["sasg"], stale_scale="rescaled")),
    "a liar": Case(RECIPES["sparse"], options={"adversary": Random(num_byzantine=1)}),
    "anchored": Case(RECIPES["gspar"], options={"estimator": SVRG()}),
    "local steps": Case(RECIPES["sparse"], options={"estimator": LocalSGD(num_steps=2)}),
    **{f"tiny {name}": Case(RECIPES[name], module=Tiny) for name in ("sgd", "sasg", "signsgd_mv", "ef21", "qsgd")},
    **{f"gathered {name}": Case(RECIPES[name], "gather") for name in ("sasg", "qsgd", "terngrad", "signsgd_mv")},
    "chosen sgd": Case(RECIPES["sgd"], "auto"),
}
SAVED = ("sasg", "lag", "ef21", "tiny sasg", "gathered sasg")


def work(rank: int, folder: Path) -> None:
    """Run every case as one worker of a world of real processes."""
    for name, case in CASES.items():
        lightning.seed_everything(3, verbose=False)
        module = case.module()
        strategy = CompressedDDPStrategy(case.algorithm, collective=case.collective, **(case.options or {}))  # pyright: ignore[reportArgumentType]
        trainer = Trainer(strategy=strategy, devices=M, callbacks=[Gauged()], **{**QUIET, "max_steps": case.rounds})
        trainer.fit(module, loader(case.data(), M, [rank]))
        ended = {
            "weights": flat(module),
            "ledger": strategy.ledger.state_dict(),
            "collective": strategy.cohort.collective.name,
            "served": strategy.cohort.server.like.numel(),
            "report": torch.from_numpy(strategy.last_report.pack()),
        }
        torch.save(ended, folder / f"{name}-{rank}.pt")
        if name in SAVED:
            cohort = strategy.cohort
            torch.save(state := copy.deepcopy(state_of(cohort)), folder / f"{name} saved-{rank}.pt")
            kept = (cohort.server.estimate, *(cohort.server.last.tensors.values() if cohort.server.last else ()))
            for tensor in kept:
                if tensor is not None:
                    tensor.zero_()
            restore(cohort, state)
            torch.save(state_of(cohort), folder / f"{name} taken back-{rank}.pt")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the results of M processes, which are forked once for all tests."""
    folder = tmp_path_factory.mktemp("world")
    forked(M, work, folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_the_simulations(name: str, world: Path) -> None:
    case = CASES[name]
    options = {"data": case.data(), "rounds": case.rounds, "callbacks": [Gauged()], **(case.options or {})}
    simulated = train(case.algorithm, case.module, workers=M, **options)
    reported = simulated.strategy.last_report
    for rank in range(M):
        process = torch.load(world / f"{name}-{rank}.pt")
        assert torch.equal(process["weights"], simulated.weights)
        assert process["ledger"] == {**simulated.ledger, "measured_s": process["ledger"]["measured_s"]}
        assert process["ledger"]["measured_s"] > 0
        sent = Report.unpack(process["report"].numpy())
        assert np.array_equal(sent._replace(num_bytes=reported.num_bytes).pack(), reported.pack(), equal_nan=True)
        assert ((sent.num_bytes * 8 >= sent.num_bits) | ~sent.uploaded).all() or case.algorithm.compressor.agrees
        assert process["collective"] == {"auto": "gather"}.get(case.collective, case.collective)
        start, end = slice_bounds(simulated.weights.numel(), M)[rank : rank + 2]
        assert process["served"] == (end - start if case.collective == "sharded" else simulated.weights.numel())


@pytest.mark.parametrize("name", SAVED)
def test_checkpoints_are_the_simulations(name: str, world: Path) -> None:
    """Servers of slices save what one server of the whole vector saves, and save the same again after restoring it."""
    case = CASES[name]
    simulated = train(case.algorithm, case.module, workers=M, rounds=case.rounds, data=case.data())
    whole = state_of(simulated.strategy.cohort)
    for when, rank in product(("saved", "taken back"), range(M)):
        state = torch.load(world / f"{name} {when}-{rank}.pt")
        state["ledger"]["measured_s"] = 0.0
        assert leaves(state) == leaves(whole)


def leaves(state: Any) -> Any:
    """Return a checkpoint with its tensors as bytes, so that == compares it exactly, whatever the order of its keys."""
    if isinstance(state, dict):
        return {key: leaves(value) for key, value in state.items()}
    return state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


class Overflowing(Toy):
    """Each worker's gradient is finite; their sum is not."""

    def training_step(self, batch: Any) -> torch.Tensor:
        return self.get_parameter("network.2.weight")[2, 15] * 3e38


class Broken(Toy):
    """The loss of worker 1 is NaN."""

    def training_step(self, batch: Any) -> torch.Tensor:
        return super().training_step(batch) * (torch.nan if self.trainer.global_rank == 1 else 1.0)


FAULTS = {Overflowing: "round 0: the workers' sum is not finite", Broken: "round 0: worker 1: loss nan"}


def fail(rank: int, folder: Path) -> None:
    """Run every fault as one worker of a world of real processes; each fit must raise NonFiniteError."""
    for collective, module in product(("sharded", "gather"), FAULTS):
        strategy = CompressedDDPStrategy(RECIPES["sgd"], collective=collective)  # pyright: ignore[reportArgumentType]
        trainer = Trainer(strategy=strategy, devices=M, **{**QUIET, "max_steps": 2})
        with pytest.raises(NonFiniteError, match=FAULTS[module]):
            trainer.fit(module(), loader(toy_data(), M, [rank]))
        (folder / f"{collective} {module.__name__} {rank}").touch()


def test_what_is_not_finite_is_no_lost_worker(tmp_path: Path) -> None:
    """Every process raises NonFiniteError with the same message: divergence is a result, which is stored."""
    forked(M, fail, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * len(FAULTS) * M


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 387, 407_050])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_slices_cover_the_vector(dim: int, workers: int) -> None:
    bounds = slice_bounds(dim, workers)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, dim, workers + 1)
    assert bounds == sorted(bounds)
    assert all(bound % UNIT == 0 or bound == dim for bound in bounds)


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    from bench.collectives.choice import make_collective
    from bench.collectives.processes import ProcessWorld
    from bench.round.codes import Codes

    recipe, vector = RECIPES["powersgd"], torch.zeros(300)
    alone = object.__new__(ProcessWorld)
    with pytest.raises(InputError, match=r"collective: 'sharded'; .*powersgd.*gather"):
        make_collective("sharded", alone, recipe, Codes(recipe, (MatrixSize(300, 15),), vector), 300)
    with pytest.raises(InputError, match="collective: 'ring'; one of auto, sharded, gather"):
        make_collective("ring", alone, recipe, Codes(recipe, (300,), vector), 300)
