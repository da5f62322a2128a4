"""SVRG: corrected gradients are exact at the anchor and nearer elsewhere; both worlds agree; costs are counted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch.utils.data import TensorDataset

from bench.adversary import Scale
from bench.errors import InputError
from bench.estimators.svrg import SVRG, CorrectedGradients, CorrectedRows
from bench.gradients.engines.loop import DenseGradients
from bench.laws.kills import Killed, RoundData, SaveAndDie, assert_goes_on
from bench.laws.toys import Normed, Recorder, Toy, counted, toy_data, train
from bench.laws.worlds import M, run_processes
from bench.tests.found import RECIPES, STEPPING

NUM_PARAMETERS = 387
ROUNDS = 30  # of an epoch: 480 samples, 4 workers × 4 a round


def full_gradient(module: Toy) -> torch.Tensor:
    """Return the gradient of the loss over all samples, in one batch."""
    data = RoundData().train_dataloader().dataset
    loss = module.training_step(data[torch.arange(480)])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


class Probe(Callback):
    """Keeps the full gradient before every round."""

    def __init__(self) -> None:
        self.full: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.full.append(full_gradient(pl_module))


def test_at_the_anchor_it_is_the_full_gradient() -> None:
    """In an epoch's first round the direction is the full gradient; over all rounds it is nearer to it than SGD's."""
    probe, corrected, plain = Probe(), Recorder(), Recorder()
    train("sgd", rounds=60, callbacks=[probe, corrected], estimator=SVRG())
    train("sgd", rounds=60, callbacks=[plain])
    for first in (0, ROUNDS):
        torch.testing.assert_close(corrected.directions[first], probe.full[first], rtol=1e-4, atol=1e-6)
    errors = [
        sum(float((d - full).norm()) for d, full in zip(run.directions, probe.full, strict=True))
        for run in (corrected, plain)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_it_is_paid_for() -> None:
    """An anchor costs a dense upload of every worker, a broadcast and a pass over the epoch; a round, two passes."""
    with_svrg, without = train("sgd", rounds=45, estimator=SVRG()).ledger, train("sgd", rounds=45).ledger
    anchors, dense = 2, 32 * NUM_PARAMETERS
    assert with_svrg["rounds"] == without["rounds"]
    assert with_svrg["uploads"] - without["uploads"] == anchors * 4
    assert with_svrg["uplink_bits"] - without["uplink_bits"] == anchors * 4 * dense
    assert with_svrg["downlink_bits"] - without["downlink_bits"] == anchors * dense
    assert with_svrg["num_backwards"] == 2 * without["num_backwards"] + anchors * 4 * ROUNDS
    assert with_svrg["traffic"]["answers"] == without["traffic"]["answers"] + anchors
    assert with_svrg["traffic"]["longest_upload_bits"] - without["traffic"]["longest_upload_bits"] == anchors * dense
    rare = train("sgd", rounds=45, estimator=SVRG(interval=2)).ledger
    assert rare["uploads"] - without["uploads"] == 4


@pytest.mark.parametrize("name", STEPPING)
def test_any_recipe_takes_it(name: str) -> None:
    assert not torch.equal(train(name, rounds=14, estimator=SVRG()).weights, train(name, rounds=14).weights)


def test_a_correction_cancels_where_gradients_are_compared() -> None:
    """The distance to corrected gradients at other parameters equals that computed from the dense corrected rows."""
    generator = torch.Generator().manual_seed(0)
    here, there, correction = (torch.randn(4, 50, generator=generator) for _ in range(3))
    rows = torch.tensor([2, 0])
    corrected = CorrectedGradients(DenseGradients(torch.zeros(4), here), correction)
    other = CorrectedRows(DenseGradients(torch.zeros(2), there[rows]), correction[rows])
    expected = (corrected.dense(rows) - other.dense(torch.arange(2))).square().sum(dim=1)
    torch.testing.assert_close(corrected.squared_distance(rows, other), expected)


def test_the_anchor_sees_what_training_sees() -> None:
    """The anchor's batches go through the module's hooks, such as one that scales inputs."""

    class Scaling(Toy):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            x, y = batch
            return 3 * x, y

    data = toy_data()
    scaled = TensorDataset(3 * data.tensors[0], data.tensors[1])
    hooked = train("sgd", Scaling, data, rounds=8, estimator=SVRG())
    assert torch.equal(hooked.weights, train("sgd", Toy, scaled, rounds=8, estimator=SVRG()).weights)


def test_a_checkpoint_knows_its_estimator(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train("sgd", callbacks=[SaveAndDie(tmp_path / "a.ckpt", 5)], estimator=SVRG(2))
    with pytest.raises(InputError, match=r"estimator: None; the checkpoint holds SVRG\(interval=2\)"):
        train("sgd", checkpoint=tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="adversary: "):
        train("sgd", adversary=Scale(num_byzantine=1, factor=-1.0), estimator=SVRG())


@pytest.mark.parametrize("name", ["sgd", "gspar", "sasg"])
def test_simulated_equals_real(name: str, tmp_path: Path) -> None:
    simulated = train(name, workers=M, estimator=SVRG())
    for process in run_processes(tmp_path, RECIPES[name], estimator=SVRG()):
        assert torch.equal(process["weights"], simulated.weights)
        assert counted(process["ledger"]) == counted(simulated.ledger)


def test_batch_norm_goes_on_undisturbed(tmp_path: Path) -> None:
    run = train("sgd", Normed, workers=M, estimator=SVRG())
    assert run.module.network[1].num_batches_tracked == 30


def test_killed_and_resumed(tmp_path: Path) -> None:
    """In mid-epoch, with the suite's own loader, whose position an anchor's pass must not change."""
    assert_goes_on("gspar", [1, 30, 31, 47], tmp_path / "saved.ckpt", max_epochs=3, estimator=SVRG())
