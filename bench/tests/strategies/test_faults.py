"""Workers with non-finite values are named, and so are parameters that no loss depends on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bench
from bench.errors import NonFiniteError
from bench.laws.toys import Toy, toy_data, train


@pytest.mark.parametrize("name", bench.recipe_names())
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_broken_gradient_is_named(name: str, bad: float) -> None:
    """Both in warm-up and in a round in which an upload rule could have skipped the worker."""
    for round in (2, 20):
        data = toy_data()
        x = data.tensors[0].clone()
        x[round * 16 + 2 * 4 + 1] = bad  # a sample of worker 2
        with pytest.raises(NonFiniteError, match=f"round {round}: worker 2"):
            train(name, data=TensorDataset(x, data.tensors[1]))


def test_an_overflow_of_the_sum_is_found() -> None:
    class Huge(Toy):
        def training_step(self, batch: Any) -> Tensor:
            return sum((p.sum() * 2e38 for p in self.parameters()), torch.zeros(()))

    with pytest.raises(NonFiniteError, match="round 0"):
        train("sgd", Huge, engine="loop")


@pytest.mark.parametrize("engine", ["joint", "loop"])
def test_parameters_that_no_loss_depends_on_are_named(engine: str) -> None:
    """There is one warning, only where signs or weight decay would move such parameters."""

    class Idle(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(2, 2)

    with pytest.warns(UserWarning, match=r"signsgd_mv: no gradient reached idle\.weight, idle\.bias;") as told:
        train("signsgd_mv", Idle, rounds=5, engine=engine)
    assert sum("no gradient reached" in str(warning.message) for warning in told) == 1
    train("sparse_signsgd", Idle, rounds=5, engine=engine)

    class Decaying(Idle):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1, weight_decay=0.01)

    with pytest.warns(UserWarning, match=r"sgd: no gradient reached idle\.weight, idle\.bias; it is 0, not None"):
        train("sgd", Decaying, rounds=5, engine=engine)
