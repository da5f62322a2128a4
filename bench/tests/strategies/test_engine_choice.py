"""`auto` chooses an engine that can run the module, and the loop once a step does what that engine cannot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
from torch.nn.utils.prune import l1_unstructured

from bench.errors import InputError
from bench.laws.toys import Toy, train
from bench.laws.worlds import M, run_processes
from bench.tests.found import RECIPES


def test_the_engine_is_chosen_by_what_the_module_is() -> None:
    class Logging(Toy):
        def training_step(self, batch: Any) -> Tensor:
            loss = super().training_step(batch)
            self.log("loss", loss)
            return loss

    class Branching(Toy):
        def training_step(self, batch: Any) -> Tensor:
            loss = super().training_step(batch)
            return loss * 2 if loss.item() > 1e9 else loss

    class Tied(Toy):
        def training_step(self, batch: Any) -> Tensor:
            return super().training_step(batch) + 1e-9 * next(self.parameters()).square().sum()

    class Collecting(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.losses: list[Tensor] = []

        def training_step(self, batch: Any) -> Tensor:
            self.losses.append(super().training_step(batch))
            return self.losses[-1]

    class Buffered(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("class_weights", torch.ones(3))

    class Scaled(Toy):
        def training_step(self, batch: Any) -> Tensor:
            return super().training_step(batch) * next(self.parameters()).detach().norm()

    for module, engine in (
        (Toy, "joint"),
        (Logging, "joint"),
        (Branching, "loop"),
        (Tied, "loop"),  # the linear engine would miss a gradient, however small
        (Collecting, "loop"),
        (Buffered, "loop"),
        (lambda: Toy(dropout=0.1), "loop"),
    ):
        assert train("sgd", module, rounds=2).strategy.fitting.chosen.engine.name == engine
    assert train("lasg", Scaled, rounds=2).strategy.fitting.chosen.engine.name == "loop", (
        "at past parameters it differs"
    )
    assert torch.equal(train("sgd", Logging).weights, train("sgd").weights)
    collected = train("sgd", Collecting, rounds=5).module.losses
    assert torch.stack(collected).shape == (5 * 4,), "a trial leaves nothing behind"


class Late(Toy):
    """From the sixth round on its step does something that the joint engine cannot."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.kept: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y = batch
        if batch_idx < 5:
            return super().training_step(batch)
        if self.what == "dropout":
            x = F.dropout(x, 0.2)
        elif self.what == "numpy":
            x = x + float(np.random.rand())  # noqa: NPY002  as users do
        elif self.what == "constant":
            return torch.tensor(1.0)
        loss = super().training_step((x, y))
        if self.what == "item":
            self.kept.append(loss.item())
        elif self.what == "branch" and loss > 100:
            loss = loss * 2
        elif self.what == "keeps":
            self.last = loss.detach()
        elif self.what == "lists":
            self.kept.append(loss.detach())
        elif self.what == "logs":
            self.log("loss", loss)
        return loss


class Pruning(Callback):
    """Prunes a layer before the sixth round, which makes its weight a product of a parameter and a mask."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 5:
            l1_unstructured(pl_module.network[0], "weight", 0.3)


LATE = ("item", "branch", "dropout", "numpy", "constant", "keeps", "lists", "logs", "prunes")


@pytest.mark.filterwarnings("ignore:.*the loss of a batch does not depend")
@pytest.mark.parametrize("recipe", ["sgd", "sasg"])
@pytest.mark.parametrize("what", LATE)
def test_auto_never_ends_a_run(what: str, recipe: str) -> None:
    """The loop repeats a step that the chosen engine cannot run, and stays: all bits are those of a run by the loop."""
    runs = {}
    for engine in ("auto", "loop"):
        callbacks = [Pruning()] if what == "prunes" else []
        runs[engine] = train(recipe, lambda: Late(what), rounds=14, engine=engine, callbacks=callbacks)
    auto, loop = runs["auto"], runs["loop"]
    assert torch.equal(auto.weights, loop.weights)
    assert auto.ledger == loop.ledger
    assert auto.strategy.fitting.chosen.engine.name == ("joint" if what == "logs" else "loop")
    assert len(auto.module.kept) == len(loop.module.kept) == (9 * 4 if what in ("item", "lists") else 0)
    kept = [value for value in [*auto.module.kept, getattr(auto.module, "last", None)] if isinstance(value, Tensor)]
    assert not any(map(is_functorch_wrapped_tensor, kept))


@pytest.mark.parametrize("engine", ["joint", "vmap"])
@pytest.mark.parametrize(("what", "told"), [("numpy", "draws from NumPy or random"), ("keeps", "keeps a tensor")])
def test_what_all_at_once_would_share_is_refused(what: str, told: str, engine: Any) -> None:
    """Where the user has chosen such an engine, there is no loop to take over."""
    with pytest.raises(InputError, match=f"engine: {engine}; training_step {told}.*auto or loop is needed"):
        train("sgd", lambda: Late(what), rounds=14, engine=engine)


def test_the_loop_goes_on_in_all_processes(tmp_path: Path) -> None:
    """One process's step fails; that round's reports tell the others, which use the loop from the next round on."""

    class AtOne(Toy):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            loss = super().training_step(batch)
            if self.trainer.global_rank == 1 and batch_idx == 5:
                loss.item()
            return loss

    class Engines(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            with (tmp_path / f"engines-{trainer.global_rank}").open("a") as file:
                file.write(f"{trainer.strategy.fitting.chosen.engine.name}\n")  # pyright: ignore[reportAttributeAccessIssue]

    simulated = train("sasg", AtOne, workers=M, rounds=14)
    for process in run_processes(tmp_path, RECIPES["sasg"], AtOne, callbacks=[Engines()], rounds=14):
        assert torch.equal(process["weights"], simulated.weights)
    for rank in range(M):
        assert (tmp_path / f"engines-{rank}").read_text().split() == ["joint"] * 5 + ["loop"] * 9
