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
        elif self.what == "decay":
            optimizer.param_groups[0]["weight_decay"] += 0.001
        elif self.what == "own rates":
            optimizer.param_groups[0]["lr"] = float(batch[0].std())
        elif self.what == "late" and self.global_step == 3:
            weight.data.mul_(0.5)
        elif self.what == "schedule":
            scheduler: Any = self.lr_schedulers()
            scheduler.step()
        elif self.what == "warms up":
            optimizer.param_groups[0]["lr"] = 0.05 * min(1, (self.global_step + 1) / 10)
        return super().training_step(batch)

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 4)]


class Outside(Toy):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([*self.parameters(), nn.Parameter(torch.ones(3, 2))], lr=0.1)


class Replaced(Toy):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        last: Any = self.network[2]
        last.weight = nn.Parameter(torch.zeros(3, 16))


class Widened(Toy):
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.double()


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    ("module", "told"),
    [
        (lambda: Steps("writes"), r"training_step: writes network\.0\.weight; all workers share it"),
        (lambda: Steps("furtive"), "training_step: writes parameters; all workers share it"),
        (lambda: Steps("late"), "training_step: writes parameters; all workers share it"),
        (lambda: Steps("own rates"), "training_step: workers have set the learning rates .*; equal ones are needed"),
        (Replaced, r"parameters: network\.2\.weight was replaced during training"),
        (Outside, r"configure_optimizers: trains a parameter of shape \(3, 2\) that the module does not have"),
        (Widened, r"parameters: network\.0\.weight became \(16, 20\) of torch.float64 on cpu during training"),
    ],
)
def test_what_would_be_done_once_a_worker_is_refused(module: Any, told: str, engine: Any) -> None:
    with pytest.raises(InputError, match=told):
        train("sgd", module, rounds=6, engine=engine)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("recipe", ["sgd", "lasg", "diloco"])
@pytest.mark.parametrize("what", ["warms up", "rate", "decay", "schedule"])
def test_a_step_sets_the_rate_once(what: str, recipe: str) -> None:
    """As one worker's step does: not once a worker, nor in trials and second passes."""
    runs = [train(recipe, lambda: Steps(what), rounds=5, workers=workers) for workers in (1, 4)]
    groups = [run.module.trainer.optimizers[0].param_groups[0] for run in runs]
    first, second = ({name: value for name, value in group.items() if name != "params"} for group in groups)
    assert first == second
    local = runs[0].strategy.algorithm.local_steps
    steps = 5 * (local.num_steps if local else 1)
    if what == "decay":
        assert first["weight_decay"] == pytest.approx(0.001 * steps)
    elif what == "rate":
        assert first["lr"] == pytest.approx(0.05 * 0.9**steps)
    elif what == "schedule":
        assert first["lr"] == pytest.approx(0.05 * 0.1 ** (steps // 4))


class Sharing(Toy):
    """Ties weights through memory, as PyTorch lets one do."""

    def __init__(self, what: str) -> None:
        super().__init__()
        weight: Any = self.network[0].weight
        if what == "parameter":
            self.again = nn.Parameter(weight.data)
        elif what == "transposed":
            self.back = nn.Linear(16, 20)
            self.back.weight.data = weight.data.T
        elif what == "buffer":
            self.register_buffer("row", weight.detach()[3])
        else:
            self.again = weight


@pytest.mark.parametrize("what", ["parameter", "transposed", "buffer"])
def test_shared_memory_is_refused(what: str) -> None:
    """Parameters move to one vector, which would tear such tensors apart."""
    with pytest.raises(InputError, match=r"in the memory of (network\.0|again|back)"):
        train("sgd", lambda: Sharing(what))


def test_one_parameter_has_two_names() -> None:
    assert torch.equal(train("sgd", lambda: Sharing("tied")).weights, train("sgd").weights)
