"""Local SGD: one step is SGD, several give the mean of local models; both worlds agree; costs are counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.aggregators import Aggregator, Mean, Sum
from bench.errors import InputError
from bench.estimators.local_sgd import LocalSGD
from bench.gradients.batches import Dealt
from bench.gradients.dealing import deal
from bench.laws.kills import assert_goes_on
from bench.laws.toys import Normed, Toy, counted, toy_data, train
from bench.laws.worlds import M, run_processes
from bench.tests.found import RECIPES, STEPPING


@pytest.mark.parametrize("name", STEPPING)
def test_one_step_is_no_estimator(name: str) -> None:
    one = train(name, rounds=14, estimator=LocalSGD(1, lr=0.1))
    assert torch.equal(one.weights, train(name, rounds=14).weights)
    several = train(name, rounds=14, estimator=LocalSGD(2, lr=0.1))
    assert not torch.equal(several.weights, one.weights)


def test_one_worker_alone_is_plain_sgd() -> None:
    """A round of four local steps equals four rounds of one step."""
    local = train("sgd", workers=1, rounds=20, batch_size=8, estimator=LocalSGD(4))
    torch.testing.assert_close(local.weights, train("sgd", workers=1, rounds=80, batch_size=2).weights)


@pytest.mark.parametrize(("aggregator", "lr"), [(Mean(), 0.2), (Sum(), 0.05)], ids=["mean", "sum"])
def test_a_round_is_the_mean_of_models(aggregator: Aggregator, lr: float) -> None:
    """Each worker trains as if it were the only one. With Sum, the learning rate is a fourth of that with Mean."""
    recipe = replace(RECIPES["sgd"], aggregator=aggregator)
    together = train(recipe, lambda: Toy(lr=lr), rounds=1, batch_size=6, estimator=LocalSGD(3))
    x, y = toy_data().tensors
    own = [torch.utils.data.TensorDataset(x[6 * m : 6 * m + 6], y[6 * m : 6 * m + 6]) for m in range(4)]
    alone = [train("sgd", lambda: Toy(lr=0.2), data, workers=1, rounds=3, batch_size=2).weights for data in own]
    torch.testing.assert_close(together.weights, torch.stack(alone).mean(dim=0))


@pytest.mark.parametrize("engine", ["loop", "joint", "vmap"])
def test_every_engine_takes_them(engine: str) -> None:
    """Also with batch norm, whose statistics follow every local step."""
    run = train("sasg", Normed, rounds=12, engine=engine, batch_size=8, estimator=LocalSGD(2))
    assert run.module.network[1].num_batches_tracked == 24
    loop = train("sasg", Normed, rounds=12, engine="loop", batch_size=8, estimator=LocalSGD(2))
    torch.testing.assert_close(run.weights, loop.weights, rtol=1e-3, atol=1e-4)


def test_it_is_paid_for() -> None:
    """Local steps cost no uploads, but a backward pass each, also where a lazy rule repeats them at old parameters."""
    local, plain = train("lasg", estimator=LocalSGD(4)).ledger, train("sgd").ledger
    free_to_skip = local["num_backwards"] / 4 - plain["num_backwards"]
    assert 0 < free_to_skip <= 4 * (30 - 10)
    assert local["rounds"] == plain["rounds"]
    assert train("sgd", estimator=LocalSGD(4)).ledger == {**plain, "num_backwards": 4 * plain["num_backwards"]}


@pytest.mark.parametrize("name", ["sgd", "sparse", "sasg"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_simulated_equals_real(name: str, dropout: float, tmp_path: Path) -> None:
    simulated = train(name, lambda: Toy(dropout=dropout), workers=M, estimator=LocalSGD(2))
    for process in run_processes(tmp_path, RECIPES[name], lambda: Toy(dropout=dropout), estimator=LocalSGD(2)):
        assert torch.equal(process["weights"], simulated.weights)
        assert counted(process["ledger"]) == counted(simulated.ledger)


def test_what_steps_log_is_logged_once() -> None:
    """The logged value is the mean over all steps of all workers, which is the round's loss."""

    class Logging(Toy):
        def training_step(self, batch: Any) -> Tensor:
            loss = super().training_step(batch)
            self.log("loss", loss)
            return loss

    run = train("sgd", Logging, rounds=6, engine="loop", estimator=LocalSGD(2))
    logged = run.strategy.lightning_module.trainer.callback_metrics["loss"]
    torch.testing.assert_close(logged.double(), torch.tensor(run.strategy.last_report.loss.mean()))


def test_steps_draw_apart() -> None:
    """Dropout masks differ between the steps of a round; else two steps of no length would have equal gradients."""
    data = torch.utils.data.TensorDataset(*(t[:1].expand(480, *t.shape[1:]).clone() for t in toy_data().tensors))
    still = train("sgd", lambda: Toy(dropout=0.5), data, rounds=1, estimator=LocalSGD(2, lr=1e-30))
    once = train("sgd", lambda: Toy(dropout=0.5, lr=0.1), data, rounds=1, batch_size=2)
    assert not torch.equal(still.weights, once.weights)


def test_killed_and_resumed(tmp_path: Path) -> None:
    assert_goes_on("sasg", [1, 31], tmp_path / "saved.ckpt", max_epochs=2, estimator=LocalSGD(2))


def test_what_cannot_be_meant() -> None:
    with pytest.raises(InputError, match="num_steps: 0; at least 1"):
        LocalSGD(0)
    with pytest.raises(InputError, match="lr: -1; a finite number above 0"):
        LocalSGD(2, lr=-1)
    with pytest.raises(InputError, match="lr: None; with MajorityVote"):
        train("signsgd_mv", estimator=LocalSGD(2))
    for optimizer, options in (("Adam", {}), ("SGD", {"momentum": 0.9})):

        class Other(Toy):
            def configure_optimizers(self) -> Any:
                return getattr(torch.optim, optimizer)(self.parameters(), lr=self.lr, **options)  # noqa: B023

        with pytest.raises(InputError, match=f"lr: None; with {'momentum' if options else optimizer}"):
            train("sgd", Other, estimator=LocalSGD(2))
        train("sgd", Other, rounds=2, estimator=LocalSGD(2, lr=0.1))
    with pytest.warns(UserWarning, match="batch of 16 samples: 4 left out, so that 4 workers and 3 steps get 3 each"):
        train("sgd", rounds=2, estimator=LocalSGD(3))
    with pytest.raises(InputError, match=r"batch: 5 samples a worker; a multiple of num_steps, 3"):
        deal(Dealt((torch.zeros(4, 5), torch.zeros(4, 5))), 4, num_parts=3)
