"""Modules of every kind train as under plain Lightning, and the same in both worlds."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning import Callback, Trainer

from bench.laws.toys import QUIET
from bench.laws.worlds import forked_once
from bench.strategies.processes import CompressedDDPStrategy
from bench.strategies.simulated import CompressedStrategy
from bench.tests.zoo import ZOO, Exhibit, tensors

M = 2
RECIPES = ("sparse", "sasg", "signsgd_mv")
UNDER_ALL = ("Taught", "Assigning", "Recurrent", "Halting")
CASES = [*((name, "sgd") for name in ZOO), *((name, recipe) for name in UNDER_ALL for recipe in RECIPES)]
HARMLESS = pytest.mark.filterwarnings("ignore:.*no gradient reached", "ignore:.*Sparse.*beta")


class Outputs(Callback):
    """Keeps what the last step returned and logged."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.last = {**outputs, **trainer.callback_metrics}


def trained(exhibit: type[Exhibit], strategy: Any, ranks: list[int], size: int, **options: Any) -> dict[str, Any]:
    """Return a module's tensors after training, and what its last step returned and logged."""
    lightning.seed_everything(3, verbose=False)
    module, outputs = exhibit(), Outputs()
    trainer = Trainer(strategy=strategy, callbacks=[outputs], **{**QUIET, "max_epochs": 1, **options})
    trainer.fit(module, module.loader(size, ranks))
    return {name: tensor.detach() for name, tensor in tensors(module)} | {"outputs": outputs.last}


def process(rank: int, folder: Path) -> None:
    """Train every case as one worker of a world of real processes."""
    for name, recipe in CASES:
        ended = trained(ZOO[name], CompressedDDPStrategy(recipe), [rank], M, devices=M)
        torch.save(ended, folder / f"{name}-{recipe}-{rank}.pt")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the results of M processes, which are forked once for all tests."""
    return forked_once(tmp_path_factory, "zoo", M, process)


def same(a: Any, b: Any) -> bool:
    if a.layout is torch.sparse_coo:
        a, b = a.to_dense(), b.to_dense()
    return torch.equal(a, b)


@HARMLESS
@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_simulated_equals_real(name: str, recipe: str, world: Path) -> None:
    simulated = trained(ZOO[name], CompressedStrategy(recipe, workers=M), list(range(M)), M)
    outputs = simulated.pop("outputs")
    real = [torch.load(world / f"{name}-{recipe}-{rank}.pt", weights_only=False) for rank in range(M)]
    for ended in real:
        ended.pop("outputs")
        assert ended.keys() == simulated.keys()
        assert [key for key, value in ended.items() if not same(value, simulated[key])] == []
    assert outputs["loss"].isfinite()


@HARMLESS
@pytest.mark.parametrize("name", [name for name, exhibit in ZOO.items() if not exhibit.draws])
def test_one_worker_is_plain_lightning(name: str) -> None:
    """Up to rounding: the memory alignment of tensors affects the last bits of products."""
    ours = trained(ZOO[name], CompressedStrategy("sgd", workers=1), [0], 1)
    plain = trained(ZOO[name], "auto", [0], 1)
    ours_outputs, outputs = ours.pop("outputs"), plain.pop("outputs")
    for key, value in plain.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-6, msg=lambda said, key=key: f"{key}: {said}")
    assert ours_outputs.keys() == outputs.keys()
    for key, value in outputs.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(ours_outputs[key], value, rtol=1e-4, atol=1e-6)
        else:
            assert ours_outputs[key] == value
