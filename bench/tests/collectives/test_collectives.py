"""Every collective gives the simulation's answer bit for bit, whatever kind of message is sent."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import TensorDataset

from bench.adversary import Random
from bench.aggregators import Aggregator, MajorityVote
from bench.algorithm import Algorithm
from bench.collectives.choice import make_collective
from bench.collectives.processes import ProcessWorld
from bench.collectives.report import Report
from bench.collectives.sharded import UNIT, slice_bounds
from bench.errors import DamagedError, InputError, NonFiniteError
from bench.estimators import SVRG, LocalSGD
from bench.gradients.layout import TensorSize
from bench.kernels.noise import Noise
from bench.laws.toys import QUIET, Gauged, Toy, counted, flat, loader, toy_data, train
from bench.laws.worlds import forked_once
from bench.round.codes import Codes
from bench.round.state import restore, state_of
from bench.strategies.processes import CompressedDDPStrategy
from bench.tests.found import RANDOM, RECIPES, RULES
from bench.wire.message import Message

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
    workers: int = M

    @property
    def rounds(self) -> int:
        """For lazy rules past round 20, in which a worker that last uploaded in round 9 must upload."""
        return 22 if self.algorithm.rule.adaptive else 6

    def data(self) -> TensorDataset:
        """Return data for one epoch of this many rounds, after which loaders need no state to go on."""
        return toy_data(self.rounds * self.workers * 4)


def carried_by(recipe: Algorithm) -> str:
    """The collective for a recipe: answers of servers that keep errors, for example, are made of whole segments."""
    uploads = recipe.compressor.blank(1, (387,), torch.zeros(387))
    return "gather" if recipe.downlink_feedback or not (uploads.cuttable or recipe.adds_up) else "sharded"


CASES = {
    **{name: Case(recipe, carried_by(recipe)) for name, recipe in RECIPES.items()},
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
    **{f"gathered {name}": Case(RECIPES[name], "gather") for name in ("sasg", "qsgd", "terngrad", "powersgd")},
    "chosen sgd": Case(RECIPES["sgd"], "auto"),
}
OTHER_SIZES = {  # so that every kind of case is played by several numbers of workers
    f"{name} by {size}": replace(case, workers=size)
    for size, start in ((2, 0), (4, 3))
    for name, case in list(CASES.items())[start::6]
}
ADDED_UP = {f"added {name}": Case(RECIPES[name], "allreduce") for name in ("sgd", "half", "powersgd")}
SAVED = ("sasg", "lag", "ef21", "tiny sasg", "gathered sasg")


@contextmanager
def swapping(other: Callable[..., list[np.ndarray]]) -> Iterator[None]:
    """Let `other(world, outgoing, sizes)` take the place of `ProcessWorld.swap` in this process."""
    swap = ProcessWorld.swap
    ProcessWorld.swap = lambda *arguments: other(*arguments)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        ProcessWorld.swap = swap


class Counting:
    """Count the bytes that leave this process for others and reach it from them, where they do."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self.swap = ProcessWorld.swap

    def __call__(self, world: ProcessWorld, outgoing: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
        incoming = self.swap(world, outgoing, sizes)
        self.sent += sum(len(piece) for rank, piece in enumerate(outgoing) if rank != world.rank)
        self.received += sum(len(piece) for rank, piece in enumerate(incoming) if rank != world.rank)
        return incoming


def work(rank: int, folder: Path, size: int = M) -> None:
    """Run every case of so many workers as one of them, each a real process."""
    cases = {**CASES, **OTHER_SIZES, **ADDED_UP}
    for name, case in ((name, case) for name, case in cases.items() if case.workers == size):
        moved = Counting()
        lightning.seed_everything(3, verbose=False)
        module = case.module()
        strategy = CompressedDDPStrategy(case.algorithm, collective=case.collective, **(case.options or {}))  # pyright: ignore[reportArgumentType]
        trainer = Trainer(strategy=strategy, devices=size, callbacks=[Gauged()], **{**QUIET, "max_steps": case.rounds})
        with swapping(moved):
            trainer.fit(module, loader(case.data(), size, [rank]))
        ended = {
            "sent": moved.sent,
            "received": moved.received,
            "weights": flat(module),
            "ledger": strategy.ledger.state_dict(),
            "collective": strategy.cohort.collective.name,
            "served": strategy.cohort.server.like.numel(),
            "report": torch.from_numpy(strategy.last_report.pack()),
        }
        torch.save(ended, folder / f"{name}-{rank}.pt")
        if name in SAVED:
            cohort = strategy.cohort
            torch.save(state := state_of(cohort), folder / f"{name} saved-{rank}.pt")
            kept = (
                cohort.known.estimate,
                cohort.server.estimate,
                *(cohort.server.last.tensors.values() if cohort.server.last else ()),
            )
            for tensor in kept:
                if tensor is not None:
                    tensor.zero_()
            restore(cohort, state)
            torch.save(state_of(cohort), folder / f"{name} taken back-{rank}.pt")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the results of M processes, which are forked once for all tests."""
    return forked_once(tmp_path_factory, "world", M, work)


@pytest.fixture(scope="session", params=(2, 4))
def other_world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """Another number of workers, and the folder of their results."""
    return request.param, forked_once(
        tmp_path_factory, f"world{request.param}", request.param, partial(work, size=request.param)
    )


def test_the_answer_is_the_simulations_for_other_numbers_of_workers(other_world: tuple[int, Path]) -> None:
    size, world = other_world
    for name, case in OTHER_SIZES.items():
        if case.workers == size:
            check(name, case, world)


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_the_simulations(name: str, world: Path) -> None:
    check(name, CASES[name], world)


def check(name: str, case: Case, world: Path) -> None:
    """Check that each process ended with the simulation's weights, counts and reports, and counted its own bytes."""
    options = {"data": case.data(), "rounds": case.rounds, "callbacks": [Gauged()], **(case.options or {})}
    simulated = train(case.algorithm, case.module, workers=case.workers, **options)
    reported = simulated.strategy.last_report
    for rank in range(case.workers):
        process = torch.load(world / f"{name}-{rank}.pt")
        assert torch.equal(process["weights"], simulated.weights)
        assert counted(process["ledger"]) == counted(simulated.ledger)
        assert process["ledger"]["waited_s"] > 0
        assert process["ledger"]["measured_s"] > 0
        assert process["ledger"]["sent_bytes"][rank] == process["sent"]
        assert process["ledger"]["received_bytes"][rank] == process["received"]
        sent = Report.unpack(process["report"].numpy())
        np.testing.assert_allclose(sent.loss, reported.loss, rtol=1e-6)  # engines may add up losses in another order
        alike = sent._replace(num_bytes=reported.num_bytes, loss=reported.loss)
        assert np.array_equal(alike.pack(), reported.pack(), equal_nan=True)
        assert ((sent.num_bytes * 8 >= sent.num_bits) | ~sent.uploaded).all() or case.algorithm.compressor.agrees
        if case.collective != "auto":
            assert process["collective"] == case.collective
        start, end = slice_bounds(simulated.weights.numel(), case.workers)[rank : rank + 2]
        sliced = case.collective == "sharded" and not name.startswith("powersgd")  # whose factors alone are
        assert process["served"] == (end - start if sliced else simulated.weights.numel())


@pytest.mark.parametrize("name", ADDED_UP)
def test_what_is_added_up_on_its_way_is_alike_everywhere(name: str, world: Path) -> None:
    """To the last bit in all processes; and nearly as in a simulation, but for the order of additions, in few bits."""
    case = ADDED_UP[name]
    simulated = train(
        case.algorithm, case.module, workers=M, data=case.data(), rounds=case.rounds, callbacks=[Gauged()]
    )
    processes = [torch.load(world / f"{name}-{rank}.pt") for rank in range(M)]
    for process in processes:
        assert torch.equal(process["weights"], processes[0]["weights"])
        assert counted(process["ledger"]) == counted(simulated.ledger)
        assert process["collective"] == "allreduce"
    tolerance = 1e-2 if name == "added half" else 1e-5
    torch.testing.assert_close(processes[0]["weights"], simulated.weights, rtol=tolerance, atol=tolerance)


FLOATS = 8  # bytes of a number in a report or header
OVERHEAD = {
    "sgd": (len(Report._fields) + M) + (3 + M),  # a report with M sizes; a header
    "gathered sasg": len(Report._fields),
}
"""Numbers that a worker sends each other one in a round, besides its message and answer."""


@pytest.mark.parametrize("name", OVERHEAD)
def test_bytes_are_those_of_messages(name: str, world: Path) -> None:
    """Gathered, M − 1 copies of each message, with less than a byte more for each of its two fields.

    In slices, (M − 1)/M of each message and M − 1 copies of each answer.
    """
    case, ledger = CASES[name], torch.load(world / f"{name}-0.pt")["ledger"]
    assert sum(ledger["received_bytes"]) == sum(ledger["sent_bytes"])
    payload = sum(ledger["sent_bytes"]) - FLOATS * OVERHEAD[name] * M * (M - 1) * case.rounds
    if case.collective == "gather":
        assert 0 <= 8 * payload - (M - 1) * ledger["uplink_bits"] < (M - 1) * 16 * ledger["uploads"]
    else:
        assert 8 * payload == (M - 1) * (ledger["uplink_bits"] // M + ledger["downlink_bits"])


@pytest.mark.parametrize("name", SAVED)
def test_checkpoints_are_the_simulations(name: str, world: Path) -> None:
    """Servers of slices save what one server of the whole vector saves, and save the same again after restoring it."""
    case = CASES[name]
    simulated = train(case.algorithm, case.module, workers=M, rounds=case.rounds, data=case.data())
    whole = {**state_of(simulated.strategy.cohort), "ledger": counted(simulated.ledger)}
    for when, rank in product(("saved", "taken back"), range(M)):
        state = torch.load(world / f"{name} {when}-{rank}.pt")
        assert leaves({**state, "ledger": counted(state["ledger"])}) == leaves(whole)


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


OVERFLOWING = (("sgd", "sharded"), ("sgd", "gather"), ("sgd", "allreduce"), ("powersgd", "sharded"))


def fail(rank: int, folder: Path) -> None:
    """Run every fault as one worker of a world of real processes; each fit must raise NonFiniteError."""
    for (recipe, collective), module in product(OVERFLOWING, FAULTS):
        strategy = CompressedDDPStrategy(RECIPES[recipe], collective=collective)  # pyright: ignore[reportArgumentType]
        trainer = Trainer(strategy=strategy, devices=M, **{**QUIET, "max_steps": 2})
        with pytest.raises(NonFiniteError, match=FAULTS[module]):
            trainer.fit(module(), loader(toy_data(), M, [rank]))
        (folder / f"{recipe} {collective} {module.__name__} {rank}").touch()
    damage(rank, folder)
    end(rank, folder)


class Damaging:
    """In one exchange, worker 1's bytes reach worker 2 as ones. `exchange`: its number, from 0."""

    def __init__(self, exchange: int) -> None:
        self.left = exchange
        self.swap = ProcessWorld.swap

    def __call__(self, world: ProcessWorld, outgoing: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
        self.left -= 1
        if self.left == -1 and world.rank == 1:
            outgoing = [np.full_like(piece, 255) if rank == 2 else piece for rank, piece in enumerate(outgoing)]
        return self.swap(world, outgoing, sizes)


IN_ROUND_3 = {"sharded": 3 * 4 + 1, "gather": 3 * 2 + 1}  # exchanges before that of messages
TOLD = "round 3: worker 1: (number of entries|length of positions): 4294967295; at most"


def damage(rank: int, folder: Path) -> None:
    """Train until damaged bytes arrive at one of the processes."""
    for collective, exchange in IN_ROUND_3.items():
        damaging = Damaging(exchange)
        strategy = CompressedDDPStrategy(RECIPES["sparse"], collective=collective)  # pyright: ignore[reportArgumentType]
        trainer = Trainer(strategy=strategy, devices=M, **{**QUIET, "max_steps": 9})
        with swapping(damaging), pytest.raises(DamagedError, match=TOLD):
            trainer.fit(Toy(), loader(toy_data(), M, [rank]))
        (folder / f"damaged {collective} {rank}").touch()


class Killed(Callback):
    """Worker 2's process is told to end in round 3."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.global_rank, batch_idx) == (2, 3):
            os.kill(os.getpid(), signal.SIGTERM)


def end(rank: int, folder: Path) -> None:
    """Train until one of the processes is told to end, and write after which round this one does."""
    strategy = CompressedDDPStrategy(RECIPES["sgd"])
    trainer = Trainer(strategy=strategy, devices=M, callbacks=[Killed()], **{**QUIET, "max_steps": 9})
    with pytest.raises(SIGTERMException):
        trainer.fit(Toy(), loader(toy_data(), M, [rank]))
    (folder / f"ended {strategy.ledger.rounds} {rank}").touch()


@pytest.fixture(scope="session")
def faulty_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what processes, forked once, found when their fits did not end as planned."""
    return forked_once(tmp_path_factory, "faulty", M, fail)


def test_what_is_not_finite_is_no_lost_worker(faulty_world: Path) -> None:
    """Every process raises NonFiniteError with the same message: divergence is a result, which is stored."""
    for (recipe, collective), module, rank in product(OVERFLOWING, FAULTS, range(M)):
        assert (faulty_world / f"{recipe} {collective} {module.__name__} {rank}").exists()


def test_what_is_damaged_ends_all_with_the_same_line(faulty_world: Path) -> None:
    """Also where one process alone sees it: the others learn it with the next reports."""
    for collective, rank in product(IN_ROUND_3, range(M)):
        assert (faulty_world / f"damaged {collective} {rank}").exists()


def test_all_end_with_one_that_is_told_to(faulty_world: Path) -> None:
    assert all((faulty_world / f"ended 4 {rank}").exists() for rank in range(M))


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 387, 407_050])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_slices_cover_the_vector(dim: int, workers: int) -> None:
    bounds = slice_bounds(dim, workers)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, dim, workers + 1)
    assert bounds == sorted(bounds)
    assert all(bound % UNIT == 0 or bound == dim for bound in bounds)


class Krum(Aggregator):
    """Needs whole messages, and their rows."""

    def aggregate(self, messages: Message, weights: torch.Tensor | None, noise: Noise) -> torch.Tensor:
        return messages.dense()[0]


ODD = replace(RECIPES["sgd"], aggregator=Krum())


@pytest.mark.parametrize(
    ("name", "recipe", "told"),
    [
        ("sharded", "an odd one", r"collective: 'sharded'; it cannot cut .*sgd.*gather"),
        ("allreduce", "sparse", r"collective: 'allreduce'; it cannot add up .*sparse.*, sharded and gather"),
        ("allreduce", "lasg", r"collective: 'allreduce'; .*lasg"),
        ("ring", "sgd", "collective: 'ring'; one of auto, sharded, gather, allreduce"),
    ],
)
def test_a_collective_refuses_what_it_cannot_carry(name: str, recipe: str, told: str) -> None:
    segments, like = (TensorSize(300, 15),), torch.zeros(300)
    algorithm = ODD if recipe == "an odd one" else RECIPES[recipe]
    codes = Codes(algorithm, segments, like)
    with pytest.raises(InputError, match=told):
        make_collective(name, object.__new__(ProcessWorld), algorithm, codes, segments, like)
