"""Gradient accumulation and loss scaling work as in Lightning, and happen before workers compress."""

import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

import bench
from bench.errors import InputError
from bench.estimators.local_sgd import LocalSGD
from bench.estimators.svrg import SVRG
from bench.laws.toys import QUIET, Gauged, Recorder, Toy, counted, flat, loader, toy_data, train
from bench.laws.worlds import M, run_processes
from bench.tests.found import RECIPES


def plain(module: Toy, **options: Any) -> Tensor:
    """Return the weights of one worker after plain Lightning training."""
    Trainer(**{**QUIET, **options}).fit(module, loader(toy_data(), 1, [0]))
    return flat(module)


@pytest.mark.parametrize("number", [2, 3])
def test_as_lightning_accumulates(number: int) -> None:
    """One worker ends as under plain Lightning, up to rounding; the last batches of an epoch make a round, too."""
    lightning.seed_everything(3, verbose=False)
    expected = plain(Toy(), accumulate_grad_batches=number, max_epochs=1, limit_train_batches=20)
    run = train("sgd", workers=1, accumulate_grad_batches=number, max_epochs=1, max_steps=-1, limit_train_batches=20)
    torch.testing.assert_close(run.weights, expected, rtol=1e-6, atol=1e-7)
    assert run.ledger["rounds"] == -(-20 // number)
    assert run.ledger["num_backwards"] == 20


def test_as_a_schedule_says() -> None:
    lightning.seed_everything(3, verbose=False)
    schedule = GradientAccumulationScheduler({0: 1, 1: 4})
    options: dict[str, Any] = {"max_epochs": 2, "limit_train_batches": 8}
    expected = plain(Toy(), callbacks=[schedule], **options)
    again = GradientAccumulationScheduler({0: 1, 1: 4})
    run = train("sgd", workers=1, callbacks=[again], max_steps=-1, **options)
    torch.testing.assert_close(run.weights, expected, rtol=1e-6, atol=1e-7)
    assert run.ledger["rounds"] == 8 + 2


@pytest.mark.parametrize("name", ["sgd", "sparse", "sasg", "lag", "dgc", "powersgd", "signsgd_mv", "gspar"])
def test_many_batches_are_a_larger_one(name: str) -> None:
    """Four batches of two samples per worker count as one of eight; rules evaluate old parameters on all four."""
    x, y = toy_data().tensors
    order = torch.arange(480).view(15, 4, 4, 2)  # round, worker, batch, sample
    apart = TensorDataset(x[order.transpose(1, 2).flatten()], y[order.transpose(1, 2).flatten()])
    weights, ledgers = [], []
    for data, size, number in ((TensorDataset(x, y), 32, 1), (apart, 8, 4)):
        lightning.seed_everything(3, verbose=False)
        module, strategy = Toy(), bench.CompressedStrategy(name, workers=4, engine="loop")
        trainer = Trainer(strategy=strategy, **QUIET, max_epochs=1, accumulate_grad_batches=number)
        trainer.fit(module, DataLoader(data, batch_size=size))
        weights.append(flat(module))
        ledgers.append(strategy.ledger.state_dict())
    several, one = ledgers[1], ledgers[0]
    assert several["num_backwards"] == 4 * one["num_backwards"]
    assert several["uploads"] == one["uploads"]
    close = RECIPES[name].compressor.contraction((1,)) is not None and "Sign" not in str(RECIPES[name].compressor)
    if close and "Random" not in str(RECIPES[name].compressor):  # others amplify rounding errors, or draw anew
        torch.testing.assert_close(weights[1], weights[0], rtol=1e-2, atol=1e-3)


def test_each_batch_has_noise_of_its_own(tmp_path: Path) -> None:
    """Both worlds use the same noise; accumulation changes it."""
    simulated = train("sasg", lambda: Toy(dropout=0.3), workers=M, rounds=14, accumulate_grad_batches=2)
    once = train("sasg", lambda: Toy(dropout=0.3), workers=M, rounds=14)
    assert not torch.equal(simulated.weights, once.weights)
    for process in run_processes(
        tmp_path, RECIPES["sasg"], lambda: Toy(dropout=0.3), rounds=14, trainer_options={"accumulate_grad_batches": 2}
    ):
        assert torch.equal(process["weights"], simulated.weights)
        assert counted(process["ledger"]) == counted(simulated.ledger)


class Overflowing(Toy):
    """The scaled loss of one worker overflows in some rounds."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y = batch
        loss = super().training_step((x, y))
        odd = torch.equal(x, toy_data().tensors[0][batch_idx * 4 * M + 4 : batch_idx * 4 * M + 8])  # worker 1's batch
        return loss * torch.where(torch.tensor(odd and batch_idx in (3, 15)), torch.inf, 1.0)


def scaled() -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000))


class Scales(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.seen.append(trainer.precision_plugin.scaler.get_scale())  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


@pytest.mark.parametrize("name", ["sgd", "sasg"])
def test_an_overflow_is_a_skipped_step(name: str, tmp_path: Path) -> None:
    """All processes skip it without compressing and lower the scale alike; other gradients are unscaled first."""
    scales, recorder = Scales(), Recorder()
    simulated = train(name, Overflowing, workers=M, rounds=18, callbacks=[scales, recorder], plugins=[scaled()])
    assert simulated.ledger["rounds"] == 16
    assert recorder.ledgers[3] == recorder.ledgers[2]
    assert scales.seen[0] == 4 * scales.seen[-1] == 1024
    for process in run_processes(
        tmp_path, RECIPES[name], Overflowing, rounds=18, trainer_options={"plugins": [scaled()]}
    ):
        assert torch.equal(process["weights"], simulated.weights)
        assert counted(process["ledger"]) == counted(simulated.ledger)


@pytest.mark.parametrize("estimator", [SVRG(), LocalSGD(2)])
def test_estimators_refuse_what_they_would_add_up_wrongly(estimator: Any) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"plugins": [scaled()]}, "precision: 16-mixed"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches: 2"),
    ]
    for options, told in cases:
        with pytest.raises(InputError, match=f"{told}.*an estimator or local steps"):
            train("sgd", estimator=estimator, **options)


def test_scales_are_taken_out_again() -> None:
    """One worker ends as under plain Lightning with the same scaler, up to rounding."""
    lightning.seed_everything(3, verbose=False)
    expected = plain(Toy(), max_steps=20, plugins=[scaled()], gradient_clip_val=0.5)
    run = train("sgd", workers=1, rounds=20, plugins=[scaled()], gradient_clip_val=0.5)
    torch.testing.assert_close(run.weights, expected, rtol=1e-3, atol=1e-4)


def test_a_round_that_a_short_batch_ends_is_gauged() -> None:
    """The third batch makes a round of its own, because the fourth is too short to divide among the workers."""
    short = Subset(toy_data(), range(3 * 16 + 3))
    strategy = bench.CompressedStrategy("sgd", workers=4)
    options = {**QUIET, "max_epochs": 1, "accumulate_grad_batches": 2}
    with pytest.warns(UserWarning, match="too short"):
        Trainer(strategy=strategy, callbacks=[Gauged()], **options).fit(Toy(), DataLoader(short, batch_size=16))
    assert strategy.ledger.rounds == 2
    assert math.isfinite(strategy.last_report.gradient_norm)
