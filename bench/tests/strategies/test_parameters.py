"""Parameters that other code than the optimizer touches: it may between rounds, a step may not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from bench.errors import InputError
from bench.laws.toys import Toy, train


class InPlace(Toy):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            for p in self.parameters():
                p.clamp_(-0.1, 0.1)


class Assigned(Toy):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        for p in self.parameters():
            p.data = p.data.clamp(-0.1, 0.1)


class Together(Toy):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        vector_to_parameters(parameters_to_vector(self.parameters()).clamp(-0.1, 0.1), self.parameters())


class ThereAndBack(InPlace):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end()
        self.double().float()


@pytest.mark.parametrize("recipe", ["sgd", "sasg", "diloco"])
@pytest.mark.parametrize("module", [Assigned, Together, ThereAndBack])
def test_assigned_weights_are_trained(module: type[Toy], recipe: str) -> None:
    """Weights may be written in place or assigned anew between rounds; either way the next round starts from them."""
    assert torch.equal(train(recipe, module).weights, train(recipe, InPlace).weights)


class Adding(Toy):
    """Adds, freezes and replaces parameters as late as is allowed."""

    def configure_optimizers(self) -> Any:
        self.scale = nn.Parameter(torch.ones(3))
        self.network[0].requires_grad_(False)
        self.network[2] = nn.Linear(16, 3)
        return super().configure_optimizers()

    def training_step(self, batch: Any) -> Tensor:
        return super().training_step(batch) * self.scale.mean()


@pytest.mark.parametrize("recipe", ["sgd", "signsgd_mv"])
def test_configure_optimizers_has_the_last_word(recipe: str) -> None:
    run = train(recipe, Adding)
    assert run.strategy.fitting.layout.names == ["scale", "network.2.weight", "network.2.bias"]
    assert not torch.equal(run.module.scale, torch.ones(3))


class Steps(Toy):
    """Its step does something for all workers."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def training_step(self, batch: Any) -> Tensor:
        optimizer: Any = self.optimizers()
        first: Any = self.network[0]
        weight = first.weight
        if self.what == "writes":
            with torch.no_grad():
                weight.clamp_(-0.1, 0.1)
        elif self.what == "furtive":
            weight.data.clamp_(-0.1, 0.1)
        elif self.what == "rate":
            optimizer.param_groups[0]["lr"] *= 0.9
        elif self.what == "schedule":
            scheduler: Any = self.lr_schedulers()
            scheduler.step()
        elif self.what == "warms up":
            optimizer.param_groups[0]["lr"] = 0.05 * min(1, (self.global_step + 1) / 10)
        return super().training_step(batch)

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 100)]


class Outside(Toy):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([*self.parameters(), nn.Parameter(torch.ones(3, 2))], lr=0.1)


class Widened(Toy):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.double()


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    ("module", "told"),
    [
        (lambda: Steps("writes"), r"training_step: writes network\.0\.weight; all workers share it"),
        (lambda: Steps("furtive"), "training_step: writes parameters; all workers share it"),
        (lambda: Steps("rate"), "training_step: changes the learning rate anew for each worker"),
        (lambda: Steps("schedule"), "training_step: steps a scheduler"),
        (Outside, r"configure_optimizers: trains a parameter of shape \(3, 2\) that the module does not have"),
        (Widened, r"parameters: network\.0\.weight became \(16, 20\) of torch.float64 on cpu during training"),
    ],
)
def test_what_would_be_done_once_a_worker_is_refused(module: Any, told: str, engine: Any) -> None:
    with pytest.raises(InputError, match=told):
        train("sgd", module, rounds=3, engine=engine)


def test_a_step_may_set_the_rate_that_all_would_set() -> None:
    run = train("sgd", lambda: Steps("warms up"), rounds=5)
    assert run.module.trainer.optimizers[0].param_groups[0]["lr"] == 0.025
