"""In a round with a learning rate of 0 nothing moves; it costs bits like any other, and training continues."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor

from bench.aggregators import Mean, Sum
from bench.algorithm import Algorithm
from bench.feedback import Momentum
from bench.laws.toys import Recorder, Toy, flat, train
from bench.rules import LASGWK2
from bench.strategies.simulated import CompressedStrategy
from bench.tests.found import RECIPES, STEPPING

RATES = [0.0, 0.0, *[0.05] * 12, 0.0, 0.02, *[0.05] * 8, 0.0]


class Warmed(Toy):
    """Takes a rate per round from RATES, which begins and ends with 0."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda round: RATES[min(round, len(RATES) - 1)])
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Half(Toy):
    """The first layer is its own parameter group, with a rate of 0 in every third round."""

    def configure_optimizers(self) -> Any:
        first, second = self.network[0], self.network[2]
        groups = [{"params": first.parameters(), "lr": 1.0}, {"params": second.parameters(), "lr": 1.0}]
        optimizer = torch.optim.SGD(groups)
        rates = [lambda round: 0.0 if round % 3 == 0 else 0.05, lambda round: 0.05]
        return [optimizer], [
            {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, rates), "interval": "step"}  # pyright: ignore[reportArgumentType]
        ]


class Watch(Callback):
    """Records the parameters, and the vectors that workers keep, after every round."""

    def __init__(self) -> None:
        self.parameters: list[Tensor] = []
        self.kept: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        assert isinstance(trainer.strategy, CompressedStrategy)
        self.parameters.append(flat(pl_module))
        self.kept.append(trainer.strategy.cohort.workers.kept.clone())


@pytest.mark.parametrize("name", STEPPING)
def test_nothing_moves(name: str) -> None:
    watch, recorder = Watch(), Recorder()
    run = train(name, Warmed, rounds=len(RATES), callbacks=[watch, recorder])
    for round, (before, after) in enumerate(zip(watch.parameters, watch.parameters[1:], strict=False), start=1):
        assert torch.equal(before, after) == (RATES[round] == 0), round
    assert run.ledger["rounds"] == len(RATES)
    assert all(
        b["downlink_bits"] > a["downlink_bits"] for a, b in zip(recorder.ledgers, recorder.ledgers[1:], strict=False)
    )
    if RECIPES[name].rule.adaptive:
        assert recorder.uploads[0] == recorder.uploads[1] == [True] * 4, "there is no rate to go by yet"


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.units == "update"])
def test_errors_wait(name: str) -> None:
    """Recipes in units of updates: errors stay bit-equal and the direction is 0."""
    watch, recorder = Watch(), Recorder()
    train(name, Warmed, rounds=len(RATES), callbacks=[watch, recorder])
    for round in (1, 14, len(RATES) - 1):
        assert torch.equal(watch.kept[round], watch.kept[round - 1])
        assert not recorder.directions[round].any()
    assert watch.kept[-1].any()


@pytest.mark.parametrize(
    "recipe",
    [RECIPES["sparse"], RECIPES["sasg"], replace(RECIPES["sparse"], feedback=Momentum(), name="momentum")],
    ids=lambda recipe: recipe.name,
)
def test_a_group_alone(recipe: Algorithm) -> None:
    """Only the entries and errors of the group whose rate is 0 stay unchanged."""
    watch = Watch()
    train(recipe, Half, rounds=10, callbacks=[watch])  # no worker skips in these
    first = 20 * 16 + 16
    for round in range(1, 10):
        stands = round % 3 == 0
        moved = watch.parameters[round] != watch.parameters[round - 1]
        waits = torch.equal(watch.kept[round][:, :, :first], watch.kept[round - 1][:, :, :first])
        assert not (stands and moved[:first].any())
        assert moved[first:].any()
        assert waits == stands


@pytest.mark.parametrize("alone", [False, True], ids=["all", "a group alone"])
def test_zeros_are_not_used_again(alone: bool) -> None:
    """A worker forced to upload at a rate of 0 uploads again in the next round; else its zeros would be reused."""

    class Paused(Toy):
        def configure_optimizers(self) -> Any:
            groups = [{"params": layer.parameters(), "lr": 1.0} for layer in (self.network[0], self.network[2])]
            rates = [lambda round: 0.0 if round == 20 else 0.05, lambda round: 0.05 if alone or round != 20 else 0.0]
            optimizer = torch.optim.SGD(groups)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)  # pyright: ignore[reportArgumentType]
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    lazy = replace(RECIPES["sasg"], rule=LASGWK2(coefficient=1e9))  # skips whenever allowed
    recorder, watch = Recorder(), Watch()
    train(lazy, Paused, rounds=26, callbacks=[recorder, watch])
    assert [all(uploads) for uploads in recorder.uploads] == [*[True] * 10, *[False] * 10, True, True, *[False] * 4]
    assert all(not torch.equal(watch.parameters[round], watch.parameters[round - 1]) for round in range(21, 26))


def test_the_threshold_of_a_mean_is_that_of_a_sum() -> None:
    """A mean at γ and a sum at γ/M upload in the same rounds; with four workers the weights are bit-equal."""
    of_sum, of_mean = (replace(RECIPES["lasg"], aggregator=aggregator()) for aggregator in (Sum, Mean))
    sums, means = Recorder(), Recorder()
    total = train(of_sum, lambda: Toy(lr=0.0125), callbacks=[sums])
    assert torch.equal(train(of_mean, lambda: Toy(lr=0.05), callbacks=[means]).weights, total.weights)
    assert sums.uploads == means.uploads
    assert not all(map(all, sums.uploads))
