"""Every engine gives the loop's gradients within its stated tolerance."""

from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import InputError
from bench.gradients.batches import Dealt, Shards, as_shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines import ENGINES, Engine, JointEngine, LoopEngine, Trial, make_engine
from bench.gradients.engines.choice import HALF_TOLERANCE
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.laws.toys import Normed, Toy, train
from bench.suite.models.resnet import resnet20


def dealt(batch: Any) -> Shards:
    """Deal a batch to as many workers as its tensors have rows."""
    return as_shards(Dealt(batch))


def rows_of(buffers: WorkerBuffers) -> dict[str, Tensor]:
    """Every worker's value of each buffer, (L, …) by name."""
    rows: Any = buffers.local(list(buffers.places))
    return {name: torch.stack(values) for name, values in rows.items()}


class Residual(lightning.LightningModule):
    """Convolutions, one of them channels-last with a bias, batch norm, and a 0-dim parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1).to(memory_format=torch.channels_last)
        self.network = resnet20()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def training_step(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.scale * self.network(self.first(x)), y)


class Problem:
    """A module and the batches of five workers."""

    def __init__(
        self, module: Callable[[], lightning.LightningModule], *shape: int, dtype: torch.dtype = torch.float32
    ) -> None:
        lightning.seed_everything(4, verbose=False)
        self.module = module().to(dtype)
        self.step: Any = self.module.training_step
        self.layout = Layout(self.module.named_parameters())
        generator = torch.Generator().manual_seed(8)
        x, y = torch.randn(5, 6, *shape, generator=generator), torch.randint(3, (5, 6), generator=generator)
        self.batch = (x.to(dtype), y)
        self.shards = dealt(self.batch)
        self.noise = [Noise(0, 0, rank) for rank in range(5)]
        moves = 0.01 * torch.randn(3, self.layout.num_parameters, generator=generator)
        self.elsewhere = list(self.layout.vector + moves.to(dtype))
        self.buffers = WorkerBuffers(self.module, 5)

    def engine(self, cls: type[Engine]) -> Any:
        self.buffers = WorkerBuffers(self.module, 5)
        arguments: Any = (self.module, self.layout, self.buffers)
        return cls(*arguments)


PROBLEMS = {"linear": (Toy, 20), "normed": (Normed, 20), "residual": (Residual, 3, 16, 16)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("cls", list(ENGINES.values()), ids=lambda cls: cls.__name__)
def test_engines_agree(cls: type[Engine], problem: str, dtype: torch.dtype) -> None:
    """Gradients, losses, distances and buffers match the loop's, also at other parameters; in float64 to 1e-9."""
    made = Problem(*PROBLEMS[problem], dtype=dtype)
    module, some = made.module, torch.tensor([0, 2, 3])
    picked, noise = dealt(tuple(t[some] for t in made.batch)), [made.noise[row] for row in some.tolist()]
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}
    results = []
    for each in (LoopEngine, cls):
        module.load_state_dict(state, strict=False)
        engine = made.engine(each)
        here = engine.gradients(made.step, made.shards, made.noise)
        there = engine.gradients_at(made.elsewhere, [0, 2, 3], made.step, picked, noise)
        same = engine.gradients_at([made.layout.vector] * 3, [0, 2, 3], made.step, picked, noise)
        results.append(
            {
                "losses": here.losses,
                "gradients": here.dense(torch.arange(5)).clone(),
                "elsewhere": there.dense(torch.arange(3)),
                "distances": here.squared_distance(some, there),
                **rows_of(made.buffers),
            }
        )
        assert here.squared_distance(some, same).max() < 1e-6 * here.dense(some).square().sum()
        assert here.finite().all()
        torch.testing.assert_close(here.sum(some), here.dense(some).sum(dim=0), rtol=1e-4, atol=1e-5)
    loop, other = results
    for name, expected in loop.items():
        difference = (other[name] - expected).double().norm(dim=-1)
        tolerance = engine.tolerance if dtype == torch.float32 else 1e-9
        assert (difference <= tolerance * expected.double().norm(dim=-1)).all(), name


@pytest.mark.parametrize("cls", list(ENGINES.values()), ids=lambda cls: cls.__name__)
def test_a_stale_pass_leaves_no_trace(cls: type[Engine]) -> None:
    """Batch norm's statistics, the user's random state and the parameters stay unchanged."""
    made = Problem(*PROBLEMS["residual"])
    chosen = made.engine(cls)
    rows = rows_of(made.buffers)
    parameters, random = made.layout.vector.clone(), torch.get_rng_state()
    picked = dealt(tuple(t[:3] for t in made.batch))
    chosen.gradients_at(made.elsewhere, [0, 1, 2], made.step, picked, made.noise[:3]).dense(torch.arange(3))
    assert all(torch.equal(values, rows[name]) for name, values in rows_of(made.buffers).items())
    assert torch.equal(made.layout.vector, parameters)
    assert torch.equal(random, torch.get_rng_state())
    assert made.layout.parameters[0].data_ptr() == made.layout.vector.data_ptr()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("cls", list(ENGINES.values()), ids=lambda cls: cls.__name__)
def test_workers_may_stand_apart(cls: type[Engine], problem: str) -> None:
    """Five workers at three different parameters: the gradients are those there, and buffers change."""
    apart, every_row, results = [0, 1, 1, 2, 0], torch.arange(5), []
    for tried in (LoopEngine, cls):
        made = Problem(*PROBLEMS[problem], dtype=torch.float64)
        at, engine = [made.elsewhere[i] for i in apart], made.engine(tried)
        still = rows_of(made.buffers)
        expected = engine.gradients_at(at, range(5), made.step, made.shards, made.noise).dense(every_row)
        gradients = engine.gradients(made.step, made.shards, made.noise, at)
        torch.testing.assert_close(gradients.dense(every_row), expected)
        assert not any(torch.equal(rows, still[name]) for name, rows in rows_of(made.buffers).items())
        assert made.layout.parameters[0].data_ptr() == made.layout.vector.data_ptr()
        results.append({**rows_of(made.buffers), "losses": gradients.losses, "gradients": expected})
    torch.testing.assert_close(*results)


def test_a_broken_worker_is_told_apart() -> None:
    made = Problem(*PROBLEMS["linear"])
    made.batch[0][3] = torch.inf
    for cls in list(ENGINES.values()):
        gradients = made.engine(cls).gradients(made.step, made.shards, made.noise)
        finite = gradients.finite() & gradients.losses.isfinite()
        assert finite.tolist() == [True, True, True, False, True]


def arguments(made: Problem) -> Any:
    return made.module, made.layout, made.buffers, made.step, made.shards, made.noise


def test_the_cpu_takes_what_is_the_same_in_every_world() -> None:
    assert Trial(*arguments(Problem(*PROBLEMS["linear"]))).choose() == "joint"
    made = Problem(*PROBLEMS["residual"])
    rows = rows_of(made.buffers)
    assert Trial(*arguments(made)).choose() == "loop"
    assert all(torch.equal(values, rows[name]) for name, values in rows_of(made.buffers).items())


class Forgetful(JointEngine):
    """Gets one gradient or loss slightly wrong, or drops the updates of buffers."""

    def __init__(self, made: Problem, lost: str) -> None:
        super().__init__(made.module, made.layout, made.buffers)
        self.lost = lost

    def gradients(self, step: Any, shards: Any, noise: Any, parameters: Any = None) -> Any:
        before = self.buffers.snapshot()
        gradients = LoopEngine(self.module, self.layout, self.buffers).gradients(step, shards, noise)
        if self.lost == "gradients":
            gradients.matrix[3] *= 1.02
        elif self.lost == "losses":
            gradients.losses[3] *= 1.02
        elif self.lost == "buffers":
            self.buffers.restore(before)
        return gradients


@pytest.mark.parametrize("lost", ["gradients", "losses", "buffers", "nothing"])
def test_an_engine_that_errs_is_not_taken(lost: str) -> None:
    """A trial rejects an engine with wrong results, and leaves the buffers unchanged."""
    made = Problem(*PROBLEMS["residual"])
    rows = rows_of(made.buffers)
    trial = Trial(*arguments(made))
    assert trial.agrees(Forgetful(made, lost)) == (lost == "nothing")
    assert trial.seconds(Forgetful(made, lost)) > 0
    assert all(torch.equal(values, rows[name]) for name, values in rows_of(made.buffers).items())


@pytest.mark.parametrize("name", ["joint", "vmap"])
def test_dropout_is_left_to_the_loop(name: str) -> None:
    """A trial rejects the engine, and using it anyway raises an InputError."""
    made = Problem(lambda: Toy(dropout=0.3), 20)
    engine = made.engine(ENGINES[name])
    assert not Trial(*arguments(made)).agrees(engine)
    with pytest.raises(InputError, match=f"engine: {name}; .*random"):
        engine.gradients(made.step, made.shards, made.noise)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ["joint", "vmap"])
def test_engines_agree_in_half_precision(name: str, problem: str) -> None:
    """Under autocast engines match within `HALF_TOLERANCE`, and gradients are in single precision."""
    made = Problem(*PROBLEMS[problem])
    single, some = made.step, torch.tensor([0, 2, 3])

    def step(batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return single(batch)

    made.step = step
    engine = make_engine(name, made.module, made.layout, made.buffers)
    assert Trial(*arguments(made), exact=False).agrees(engine)
    distances = []
    for each in (LoopEngine, ENGINES[name]):
        chosen, picked = made.engine(each), dealt(tuple(t[some] for t in made.batch))
        here = chosen.gradients(step, made.shards, made.noise)
        there = chosen.gradients_at(made.elsewhere, [0, 2, 3], step, picked, [made.noise[row] for row in (0, 2, 3)])
        distances.append(here.squared_distance(some, there))
        assert here.dense(some).dtype == torch.float32
    torch.testing.assert_close(*distances, rtol=HALF_TOLERANCE, atol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10, 16])
def test_a_worker_does_not_see_how_many_there_are(batch_size: int) -> None:
    """With linear layers the joint engine gives a worker the same bits alone and among ten."""
    module, generator = Toy(), torch.Generator().manual_seed(9)
    layout = Layout(module.named_parameters())
    engine = JointEngine(module, layout, WorkerBuffers(module, 10))
    x = torch.randn(10, batch_size, 20, generator=generator)
    y = torch.randint(3, (10, batch_size), generator=generator)
    together = engine.gradients(module.training_step, dealt((x, y)), [Noise(0, 0, 0)] * 10).dense(torch.arange(10))
    for row in range(10):
        engine = JointEngine(module, layout, WorkerBuffers(module, 1))
        alone = engine.gradients(module.training_step, dealt((x[row, None], y[row, None])), [Noise(0, 0, 0)])
        assert torch.equal(alone.dense(torch.tensor([0]))[0], together[row])


def test_engines_train_alike() -> None:
    torch.testing.assert_close(train("sgd", engine="joint").weights, train("sgd", engine="loop").weights)


def test_a_lazy_run_is_the_same_under_vmap() -> None:
    """Uploads and all of the ledger, in a run too short for rounding errors to be amplified."""
    loop, vmap = train("lasg", rounds=14, engine="loop"), train("lasg", rounds=14, engine="vmap")
    torch.testing.assert_close(vmap.weights, loop.weights, rtol=1e-4, atol=1e-6)
    assert vmap.ledger == loop.ledger


class Shifting(Toy):
    """Adds to its batch in place."""

    def training_step(self, batch: Any) -> Tensor:
        batch[0].add_(1.0)
        return super().training_step(batch)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_that_changes_its_batch_changes_a_copy(engine: str) -> None:
    """The trial of engines before it and the pass at stale parameters after it read the unchanged batch."""
    plain, auto = train("lasg", Shifting, engine=engine), train("lasg", Shifting)
    assert torch.equal(auto.weights, train("lasg", Shifting, engine="loop").weights)
    torch.testing.assert_close(plain.weights, auto.weights)
    assert auto.ledger["num_backwards"] > 4 * 30
