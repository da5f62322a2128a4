"""Buffers that steps write: each worker has its own values; trials and stale passes write none."""

import copy
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, ModelPruning
from torch import Tensor, nn
from torch.utils.data import DataLoader

import bench
from bench.errors import InputError
from bench.gradients import buffers
from bench.laws.kills import Killed, SaveAndDie
from bench.laws.toys import QUIET, Normed, Toy, loader, toy_data, train
from bench.laws.worlds import M, run_processes


class Student(Toy):
    """Its teacher averages its weights; it reassigns one buffer, and writes one through `.data`, unseen by PyTorch."""

    def __init__(self, late: int = 0) -> None:
        super().__init__()
        self.late = late
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("counted", torch.zeros(3000))
        self.register_buffer("constant", torch.ones(4))

    def training_step(self, batch: Any) -> Tensor:
        x, _ = batch
        if self.global_step >= self.late:
            with torch.no_grad():
                for old, new in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
                    old.lerp_(new, 0.1)
            self.seen = self.seen + len(x)
            self.get_buffer("counted").data.add_(x.mean())
        return super().training_step(batch) + F.mse_loss(self.network(x), self.teacher(x))


def test_a_buffer_that_a_step_registers_is_refused() -> None:
    class Registering(Toy):
        def __init__(self, when: int) -> None:
            super().__init__()
            self.when = when

        def training_step(self, batch: Any) -> Tensor:
            if self.global_step == self.when and not hasattr(self, "late"):
                self.register_buffer("late", torch.ones(()))
            return super().training_step(batch)

    for engine, when in itertools.product(("auto", "loop"), (0, 3)):
        with pytest.raises(InputError, match="training_step: registers late, which the next worker finds"):
            train("sgd", partial(Registering, when), rounds=5, engine=engine)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("recipe", ["sgd", "lasg"])
@pytest.mark.parametrize("late", [0, 5])
def test_once_a_round(recipe: str, late: int) -> None:
    """Workers write their own rows once a round, also if steps start writing late; the module ends with the means."""
    run = train(recipe, lambda: Student(late), rounds=14)
    rounds = 14 - late
    assert run.module.seen == 4 * rounds
    rows = run.strategy.fitting.buffers.rows
    moved = {f"teacher.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")} | {"seen", "counted"}
    assert rows.keys() == moved, "what nobody writes has no rows"
    assert len({float(row[0]) for row in rows["counted"]}) == 4, "each worker counts its own samples"
    expected = torch.stack(rows["counted"]).mean(dim=0)
    assert torch.equal(run.module.counted, expected)
    if recipe == "lasg":
        assert run.ledger["num_backwards"] > 14 * 4


@pytest.mark.parametrize("recipe", ["sgd", "lasg"])
def test_one_worker_moves_them_as_plain_training_does(recipe: str) -> None:
    """Up to rounding under `sgd`; the extra passes of an upload rule count no samples."""
    run = train(recipe, Student, workers=1, rounds=20)
    lightning.seed_everything(3, verbose=False)
    module = Student()
    trainer = Trainer(**{**QUIET, "max_steps": 20})
    if recipe == "sgd":
        trainer.fit(module, loader(toy_data(), 1, [0]))
        for name, value in state(module).items():
            torch.testing.assert_close(run.module.state_dict()[name], value)
    assert run.module.seen == 4 * 20


class SaveWeights(Callback):
    """Saves a weights-only checkpoint in the middle of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 20:
            trainer.save_checkpoint(self.path, weights_only=True)


def test_both_worlds(tmp_path: Path) -> None:
    """Simulation and real processes agree at the end, and in a weights-only checkpoint, which holds the means."""
    paths = [tmp_path / "simulated.ckpt", tmp_path / "real.ckpt"]
    simulated = train("sasg", Student, workers=M, callbacks=[SaveWeights(paths[0])])
    real = run_processes(tmp_path, bench.load_recipe("sasg"), Student, callbacks=[SaveWeights(paths[1])])
    saved = [torch.load(path)["state_dict"] for path in paths]
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.equal(value, saved[1][name]) for name, value in saved[0].items())
    assert saved[0]["seen"] == 4 * 20
    for process in real:
        assert torch.equal(process["weights"], simulated.weights)
        for name, buffer in simulated.module.named_buffers():
            assert torch.equal(process["buffers"][name], buffer), name


def test_over_a_resume(tmp_path: Path) -> None:
    whole, path = train("sasg", Student, rounds=44), tmp_path / "saved.ckpt"
    with pytest.raises(Killed):
        train("sasg", Student, callbacks=[SaveAndDie(path, 30)], max_steps=44)  # after one epoch
    resumed = train("sasg", Student, rounds=44, checkpoint=path)
    assert all(torch.equal(resumed.module.state_dict()[name], value) for name, value in state(whole.module).items())
    saved = torch.load(path)["state_dict"]
    assert torch.equal(saved["counted"], torch.stack(list(torch.load(path)["bitbudget"]["buffers"]["counted"])).mean(0))


def test_what_a_callback_writes_is_everybodys() -> None:
    """All workers get what a callback writes between rounds: assigned or in place, whether steps write it or not."""

    class Resetting(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 5:
                pl_module.seen = torch.zeros(())
                pl_module.counted.zero_()
                pl_module.constant.fill_(2)
                pl_module.teacher.load_state_dict(pl_module.network.state_dict())

    run = train("sgd", Student, rounds=6, callbacks=[Resetting()])
    assert run.module.seen == 4
    assert run.module.constant.tolist() == [2.0] * 4
    rows = run.strategy.fitting.buffers.rows
    assert all(float(row[0].abs()) < 1 for row in rows["counted"]), "one round's worth"
    assert "constant" not in rows


@pytest.mark.filterwarnings("ignore:.*Checkpoint directory", "ignore:.*number of training batches")
def test_what_is_loaded_is_measured(tmp_path: Path) -> None:
    """`validate` and `test` use the buffers that were loaded; weights-only checkpoints hold the means over workers."""

    class Measured(Normed):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("loss", self.training_step(batch))
            self.at_work = self.get_buffer("network.1.running_mean").clone()

        test_step = validation_step

    save = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", save_weights_only=True)
    options = {**QUIET, "enable_checkpointing": True, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    trainer = Trainer(strategy=bench.CompressedStrategy("sgd", workers=4), max_epochs=3, callbacks=[save], **options)
    module, batches = Measured(), DataLoader(toy_data(), batch_size=48)
    trainer.fit(module, batches, batches)
    rows = torch.stack(trainer.strategy.fitting.buffers.rows["network.1.running_mean"])  # pyright: ignore[reportAttributeAccessIssue]
    last = torch.load(tmp_path / "epoch=2.ckpt")["state_dict"]["network.1.running_mean"]
    assert torch.equal(last, rows.mean(dim=0))
    assert torch.equal(module.at_work, last)
    first = torch.load(tmp_path / "epoch=0.ckpt")["state_dict"]
    for measure in (trainer.validate, trainer.test):
        measure(module, batches, ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
        assert torch.equal(module.at_work, first["network.1.running_mean"])
    module.load_state_dict({**first, "network.1.running_mean": torch.ones(16)})
    trainer.validate(module, batches, verbose=False)
    assert torch.equal(module.at_work, torch.ones(16))


@pytest.mark.filterwarnings("ignore:.*Checkpoint directory")
def test_what_an_evaluation_writes_stays(tmp_path: Path) -> None:
    """A buffer that steps write, and one that they do not; the statistics that it only reads remain the workers'."""

    class Evaluating(Normed):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("best", torch.zeros(()))
            self.register_buffer("both", torch.zeros(()))

        def training_step(self, batch: Any) -> Tensor:
            self.get_buffer("both").add_(1)
            return super().training_step(batch)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.get_buffer("best").add_(1)
            self.get_buffer("both").zero_()

    trainer = Trainer(
        strategy=bench.CompressedStrategy("sgd", workers=4),
        max_epochs=3,
        **{**QUIET, "limit_val_batches": 1, "num_sanity_val_steps": 0},
    )
    module, batches = Evaluating(), DataLoader(toy_data(), batch_size=48)
    trainer.fit(module, batches, batches)
    assert (module.best, module.both) == (3, 0)
    rows = trainer.strategy.fitting.buffers.rows["network.1.running_mean"]  # pyright: ignore[reportAttributeAccessIssue]
    assert not torch.equal(rows[0], rows[1])


class Swapping(Callback):
    """Shows other buffers while an evaluation runs, and puts back what it found; leaves others when a fit ends."""

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.found = {name: value.clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict({**self.found, "network.1.running_mean": torch.ones(16)})

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.load_state_dict(self.found)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.get_buffer("network.1.running_mean").fill_(7)
        self.saved = trainer.strategy.lightning_module_state_dict()  # as a checkpoint has it


@pytest.mark.parametrize("workers", [1, 4])
def test_a_callback_may_put_other_buffers_in_their_place(workers: int) -> None:
    class Evaluated(Normed):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            assert self.get_buffer("network.1.running_mean").eq(1).all()

    rows = {}
    for swapping in (Swapping(), None):
        lightning.seed_everything(3, verbose=False)
        strategy: Any = bench.CompressedStrategy("sgd", workers=workers)
        options = {**QUIET, "limit_val_batches": int(swapping is not None), "num_sanity_val_steps": 0}
        trainer = Trainer(strategy=strategy, max_epochs=2, callbacks=[swapping] if swapping else [], **options)
        batches = DataLoader(toy_data(), batch_size=48)
        trainer.fit(Evaluated(), batches, batches)
        rows[swapping] = torch.stack(strategy.fitting.buffers.rows["network.1.running_var"])
        if swapping:
            assert swapping.saved["network.1.running_mean"].eq(7).all()
    assert len({repr(each) for each in rows.values()}) == 1


def test_averages_of_weights_are_of_all_workers_statistics() -> None:
    """At the end a callback that averages the module's buffers over rounds has the mean of the workers' averages."""
    means: list[Tensor] = []

    class Means(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            rows = trainer.strategy.fitting.buffers.rows["network.1.running_mean"]  # pyright: ignore[reportAttributeAccessIssue]
            means.append(torch.stack(rows).mean(dim=0))

    run = train("sgd", Normed, rounds=8, callbacks=[EMAWeightAveraging(decay=0.5, update_every_n_steps=1), Means()])
    expected = means[0]
    for later in means[1:]:
        expected = expected + (later - expected) * 0.5
    torch.testing.assert_close(run.module.get_buffer("network.1.running_mean"), expected)


@pytest.mark.filterwarnings("ignore:.*make_pruning_permanent")
def test_pruning_that_becomes_permanent() -> None:
    run = train(
        "sgd", Toy, rounds=6, callbacks=[ModelPruning("l1_unstructured", amount=0.5, use_global_unstructured=True)]
    )
    weight = run.module.network[0].weight  # pyright: ignore[reportAttributeAccessIssue]
    assert 0.3 < float((weight == 0).float().mean()) < 0.7


def test_trials_and_stale_passes_draw_nothing() -> None:
    """PyTorch's, NumPy's and Python's next draws are the same with dropout, trials and stale passes as without."""
    import random

    drawn = []
    for recipe, dropout in (("sgd", 0.0), ("sgd", 0.3), ("lasg", 0.3)):
        lightning.seed_everything(7, verbose=False)
        run = train(recipe, lambda dropout=dropout: Toy(dropout=dropout), rounds=14)
        assert run.ledger["rounds"] == 14
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert drawn[0] == drawn[1] == drawn[2]


def test_memory_that_would_not_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "free_bytes", lambda device: 3 * 16 * 4)
    with pytest.raises(InputError, match=r"teacher\..*: a frozen parameter that training_step moves; 4 workers need"):
        train("sgd", Student, rounds=1)


def test_a_write_that_cannot_be_told_is_refused() -> None:
    """One of several workers writes through `.data`, to entries that are not sampled, so that its rank is unknown."""

    class Furtive(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("queue", torch.zeros(100_000))
            self.calls = 0

        def training_step(self, batch: Any) -> Tensor:
            if batch[0][0, 0] == WRITER[0, 0]:
                self.get_buffer("queue").data[1:100] = 1
            return super().training_step(batch)

    WRITER = toy_data().tensors[0][8:12]  # of worker 2 in the first round
    with pytest.raises(InputError, match="queue: written without PyTorch recording it"):
        train("sgd", Furtive, rounds=1)
