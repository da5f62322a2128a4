"""Modules, callbacks and options that a strategy rejects with a one-line message, most before the first round."""

from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, GradientAccumulationScheduler
from torch import Tensor, nn

import bench
from bench.errors import InputError
from bench.estimators.svrg import SVRG
from bench.laws.toys import QUIET, Toy, train


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None", "ignore:Lazy modules")
@pytest.mark.filterwarnings("ignore:.*dataloader_iter", "ignore:.*Found .dataloader_iter")
def test_what_cannot_be_run_is_refused() -> None:
    class Manual(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    class Silent(Toy):
        def training_step(self, batch: Any) -> Any:
            return None

    class Mixed(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.network[2] = self.network[2].double()

    class Backboned(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = self.network[0]

    class Backward(Toy):
        def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
            loss.backward()

    class Fetching(Toy):
        def training_step(self, dataloader_iter: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().training_step(next(dataloader_iter))

    class Lazy(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.network[2] = nn.LazyLinear(3)

    class Complex(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.phase = nn.Parameter(torch.zeros(3, dtype=torch.complex64))

    class Several(Toy):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

    class Searching(Toy):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    class Twice(torch.optim.SGD):
        """Takes two gradients a step, as sharpness-aware minimisation does."""

        def step(self, closure: Any = None) -> Any:
            closure()
            return super().step(closure)

    class Sharp(Toy):
        def configure_optimizers(self) -> Any:
            return Twice(self.parameters(), self.lr)

    class Keeping(Toy):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
            if batch_idx % 2 == 0:
                optimizer.zero_grad(set_to_none=False)

    class Negative(Toy):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], gamma=-1)]

    class Unstepped(Toy):
        def configure_optimizers(self) -> Any:
            return None

    class Thawing(Callback):
        """Freezes a layer in the first epoch, as `BaseFinetuning` does."""

        def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
            pl_module.network[0].requires_grad_(False)

        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            pl_module.network[0].requires_grad_(trainer.current_epoch > 0)

    class Exchanging(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            if trainer.current_epoch:
                pl_module.network[2] = nn.Linear(16, 3)

    later = GradientAccumulationScheduler({0: 1, 2: 8})
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (
            Toy,
            {"callbacks": [later], "estimator": SVRG()},
            "accumulate_grad_batches: 8; with an estimator or local steps 1 is",
        ),
        (
            Toy,
            {"callbacks": [Thawing()], "rounds": 40},
            r"requires_grad: network\.0\.weight became True during",
        ),
        (
            Backboned,
            {"callbacks": [BackboneFinetuning(10)]},
            "callbacks: BackboneFinetuning; what is trained is settled",
        ),
        (Toy, {"callbacks": [Exchanging()], "rounds": 40}, r"parameters: network\.2\.weight was added during training"),
        (Manual, {}, "automatic_optimization"),
        (Backward, {}, "backward: overridden"),
        (Fetching, {}, "training_step: takes dataloader_iter; a batch is needed"),
        (Lazy, {}, r"parameters: network\.2\.weight has no shape yet"),
        (Complex, {}, r"parameters: phase is of torch\.complex64; real numbers are needed"),
        (Several, {}, "configure_optimizers: several; exactly 1 is needed"),
        (Searching, {}, "configure_optimizers: LBFGS; its steps take several gradients"),
        (Sharp, {"accumulate_grad_batches": 2}, "accumulate_grad_batches: 2; .* several gradients 1 is needed"),
        (Keeping, {}, "optimizer_zero_grad: it keeps gradients"),
        (Negative, {"rounds": 40}, "learning rate: -0.05; a finite number, at least 0"),
        (Unstepped, {}, "configure_optimizers: returned None; one optimizer is needed"),
        (Silent, {}, "training_step: returned NoneType"),
        (Mixed, {}, "one dtype"),
    ]
    for module, options, told in cases:
        with pytest.raises(InputError, match=told):
            train("sgd", module, **options)
    for number in (0, 2.5, "4"):
        with pytest.raises(InputError, match=f"workers: {number!r}"):
            bench.CompressedStrategy("sgd", workers=number)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RuntimeError, match="not available before fit"):
        _ = bench.CompressedStrategy("sgd").ledger
    with pytest.warns(UserWarning, match="devices: 3; all workers are simulated on the first, cpu"):
        Trainer(strategy="sgd", **QUIET, devices=3)
    with pytest.raises(InputError, match=r"'none'; one of .*sgd"):
        bench.CompressedStrategy("none")
