"""LightningModules as users write them, under every recipe."""

import math
from contextlib import nullcontext
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import SumMetric

import bench
from bench.estimators.svrg import SVRG
from bench.gradients.batches import Served
from bench.kernels.noise import Noise
from bench.laws.toys import QUIET, Deal, Toy, flat, toy_data, train
from bench.tests.found import RECIPES


class Convolutional(lightning.LightningModule):
    """A user's module: convolutions, layer norm, dicts as batch and output, Adam or another, a schedule, logs."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.Adam) -> None:
        super().__init__()
        self.optimizer: Any = optimizer
        self.network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(144), nn.Dropout(0.1), nn.Linear(144, 5)
        )
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(7))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss = F.cross_entropy(self.network(batch["image"]), batch["label"])
        self.log("train_loss", loss)
        return {"loss": loss, "extra": loss.detach() * 2}

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters(), lr=1e-2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Pictures(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"image": torch.randn(1, 8, 8, generator=generator), "label": index % 5}


@pytest.mark.parametrize("name", bench.recipe_names())
def test_any_module(name: str) -> None:
    lightning.seed_everything(0, verbose=False)
    recipe = RECIPES[name]
    module = Convolutional(torch.optim.SGD if recipe.moments else torch.optim.Adam)  # which has moments of its own
    before = flat(module)
    strategy = bench.CompressedStrategy(recipe) if recipe.local_steps else name
    trainer = Trainer(strategy=strategy, max_epochs=4, gradient_clip_val=1.0, **QUIET)
    with pytest.warns(UserWarning, match="no gradient reached unused") if recipe.moves_zeros else nullcontext():
        trainer.fit(module, DataLoader(Pictures(), batch_size=20))
    assert not torch.equal(flat(module), before)
    x = torch.tensor([[0.0] * 7 + [1.0]])
    segments = (8,) if recipe.granularity == "model" else (7, 1)
    if not recipe.compressor.compress(x, segments, [Noise(0, 0, 0)]).dense()[:, :7].any():  # signs, grids cannot send 0
        assert torch.equal(module.unused, torch.ones(7))
    assert trainer.callback_metrics["train_loss"] > 0
    assert trainer.strategy.ledger.rounds == 16  # pyright: ignore[reportAttributeAccessIssue]


def test_one_worker_is_plain_training() -> None:
    """SGD with one worker ends with the weights of a plain PyTorch loop, bit for bit."""
    data = toy_data()
    lightning.seed_everything(3, verbose=False)
    module = Toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for indices in Deal(480, 1, [0], 4).batches[:30]:
        optimizer.zero_grad()
        module.training_step(data[indices]).backward()
        optimizer.step()
    assert torch.equal(train("sgd", workers=1).weights, flat(module))


def test_the_mean_is_one_large_batch() -> None:
    """A round of SGD is a plain step on the batch of all workers' samples, at the same γ, up to rounding."""
    lightning.seed_everything(3, verbose=False)
    module = Toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for indices in Deal(480, 4, range(4), 4).batches[:30]:
        optimizer.zero_grad()
        module.training_step(toy_data()[indices]).backward()
        optimizer.step()
    torch.testing.assert_close(train("sgd").weights, flat(module))


def test_stale_passes_do_not_log() -> None:
    """The logged loss is the mean over workers of their steps' losses, not of a pass at old parameters."""
    seen: list[float] = []

    class Logging(Toy):
        def training_step(self, batch: Any) -> Tensor:
            loss = super().training_step(batch)
            self.log_dict({"loss": loss, "one": 1}, prog_bar=False)
            return loss

    class Compare(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            logged = float(trainer.callback_metrics["loss"])
            seen.append(abs(logged - trainer.strategy.last_report.loss.mean()))  # pyright: ignore[reportAttributeAccessIssue]

    train("lasg", Logging, callbacks=[Compare()])
    assert len(seen) == 30
    assert max(seen) < 1e-6


@pytest.mark.parametrize("workers", [1, 4])
def test_a_step_may_run_a_backward_pass_of_its_own(workers: int) -> None:
    """As for an adversarial example: Lightning clears gradients between the step and its own backward pass."""

    class Adversarial(Toy):
        def training_step(self, batch: Any) -> Tensor:
            x, y = batch
            x = x.requires_grad_()
            F.cross_entropy(self.network(x), y).backward()
            assert x.grad is not None
            return F.cross_entropy(self.network(x.detach() + 0.1 * x.grad.sign()), y)

    class Plain(Toy):
        def training_step(self, batch: Any) -> Tensor:
            x, y = batch
            (gradient,) = torch.autograd.grad(F.cross_entropy(self.network(x.requires_grad_()), y), x)
            return F.cross_entropy(self.network(x.detach() + 0.1 * gradient.sign()), y)

    assert torch.equal(train("sgd", Adversarial, workers=workers).weights, train("sgd", Plain, workers=workers).weights)


def test_what_is_logged_is_its_value_then() -> None:
    """Not a reference to a tensor that the step moves afterwards; and `log_dict` may be the module's own."""
    last: dict[str, Any] = {}

    class Moving(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros(()))

        def log_dict(self, dictionary: Any, *args: Any, **kwargs: Any) -> None:
            super().log_dict({f"train/{name}": value for name, value in dictionary.items()}, *args, **kwargs)

        def training_step(self, batch: Any) -> Any:
            steps = self.get_buffer("steps")
            self.log_dict({"steps": steps})
            steps.add_(1)
            return {"loss": super().training_step(batch), "steps": steps}

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            last.update(self.trainer.callback_metrics, returned=outputs["steps"])

    for workers in (1, 4):
        train("sgd", Moving, workers=workers, rounds=5)
        assert (last["train/steps"], last["returned"].mean()) == (4, 5)


class Counting(Toy):
    """Keeps the losses of its steps and counts them with a metric; its dropout makes `auto` choose the loop."""

    def __init__(self) -> None:
        super().__init__(dropout=0.1)
        self.losses: list[float] = []
        self.count = SumMetric()

    def training_step(self, batch: Any) -> Tensor:
        loss = super().training_step(batch)
        self.losses.append(loss.item())
        self.count(1)
        return loss


@pytest.mark.parametrize("estimator", [None, SVRG()], ids=["lazy", "anchored"])
def test_other_passes_leave_nothing_behind(estimator: SVRG | None) -> None:
    """Lists and metrics collect from a round's own batches, not from trials or passes at old parameters or anchors."""
    trained = train("lasg", Counting, estimator=estimator)
    assert trained.ledger["num_backwards"] > 30 * 4
    assert len(trained.module.losses) == trained.module.count.compute() == 30 * 4


def test_who_holds_a_list_or_a_hook_goes_on_holding_it() -> None:
    """Passes at old parameters restore the contents of lists and hooks in place, so that references stay valid."""
    seen: list[int] = []

    class Watching(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            self.losses = pl_module.losses
            self.hook = pl_module.network.register_forward_hook(lambda *args: seen.append(0))

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step == 20:
                self.hook.remove()
                self.num_seen = len(seen)

    watching = Watching()
    module = train("lasg", Counting, callbacks=[watching]).module
    assert watching.losses is module.losses
    assert not module.network._forward_hooks
    assert len(seen) == watching.num_seen == 20 * 4, "of what a hook collects, only a round's own batches stay"


def test_lightning_goes_on_working() -> None:
    """Gradient clipping applies to the direction, which a callback sees before; the weights stay in the state dict."""

    class Norms(Callback):
        def __init__(self) -> None:
            self.norms: list[float] = []

        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            self.norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in pl_module.parameters())))

    norms = Norms()
    clipped = train("sgd", callbacks=[norms], gradient_clip_val=1e-3)
    assert min(norms.norms) > 1e-3
    moved = (clipped.weights - train("sgd", rounds=1, module=lambda: Toy(lr=0.0)).weights).norm()
    assert 0 < moved <= 30 * 1e-3 * 0.05 * 1.001
    state = clipped.module.state_dict()
    fresh = Toy()
    fresh.load_state_dict(state)
    assert torch.equal(flat(fresh), clipped.weights)


class Kinds(Toy):
    """Batch norm; evaluated on batches for even workers, odd ones and all; records the running mean used for each."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.BatchNorm1d(20), *self.network)
        self.means: list[Tensor] = []

    def val_dataloader(self) -> DataLoader:
        batches: Any = [(torch.zeros(4, 20), ranks) for ranks in (slice(0, None, 2), slice(1, None, 2), slice(None))]
        return DataLoader(batches, batch_size=None, collate_fn=Served._make)

    def validation_step(self, batch: Tensor) -> None:
        assert batch.shape == (4, 20)
        self.means.append(self.get_buffer("network.0.running_mean").clone())


def test_some_workers_serve_a_batch() -> None:
    """A batch is evaluated with the mean of their statistics; afterwards the module has the mean over all again."""
    options = {**QUIET, "limit_val_batches": 3, "max_steps": 3, "val_check_interval": 3}
    trainer, module = Trainer(strategy=bench.CompressedStrategy("sgd", workers=4), **options), Kinds()
    trainer.fit(module, DataLoader(toy_data(), batch_size=16))
    rows = torch.stack(trainer.strategy.fitting.buffers.rows["network.0.running_mean"])  # pyright: ignore[reportAttributeAccessIssue]
    *_, even, odd, everyone = module.means
    assert torch.equal(even, rows[::2].mean(dim=0))
    assert torch.equal(odd, rows[1::2].mean(dim=0))
    assert not torch.equal(even, odd)
    assert torch.equal(everyone, rows.mean(dim=0))
    assert torch.equal(module.get_buffer("network.0.running_mean"), rows.mean(dim=0))


def test_sparse_adam() -> None:
    """It moves the rows that any worker's samples reached, and trains as under plain Lightning."""

    class Words(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(30, 4, sparse=True)

        def training_step(self, batch: Any) -> Tensor:
            (tokens,) = batch
            return self.embedding(tokens).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SparseAdam(list(self.parameters()), lr=0.1)

    tokens = torch.randint(20, (48, 3), generator=torch.Generator().manual_seed(1))
    weights = []
    for strategy in ("auto", bench.CompressedStrategy("sgd", workers=1), bench.CompressedStrategy("sgd", workers=4)):
        lightning.seed_everything(3, verbose=False)
        module = Words()
        trainer = Trainer(strategy=strategy, **QUIET, max_epochs=1)
        trainer.fit(module, DataLoader(TensorDataset(tokens), batch_size=8))
        weights.append(module.embedding.weight.detach())
    torch.testing.assert_close(weights[1], weights[0])
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-3, atol=1e-4)
    lightning.seed_everything(3, verbose=False)
    assert torch.equal(weights[2][20:], Words().embedding.weight[20:]), "rows that nobody reached stand still"


def test_what_steps_return_reaches_the_hooks() -> None:
    """Hooks get outputs in rank order under every engine; logged values are reduced over workers by `reduce_fx`."""

    class Telling(Toy):
        def training_step(self, batch: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            logits = self.network(batch[0])
            loss = F.cross_entropy(logits, batch[1])
            for reduction in ("mean", "min", "max", "sum"):
                self.log(name=reduction, value=loss, reduce_fx=reduction)
            self.log("positional", loss, False, None, None, None, "max")
            self.log_dict(dictionary={"two": 2})
            return {"loss": loss, "logits": logits, "own": loss.detach(), "word": "w"}

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            assert outputs["logits"].shape == (16, 3)
            assert not outputs["logits"].requires_grad
            losses = F.cross_entropy(outputs["logits"], batch[1], reduction="none").view(4, 4).mean(dim=1)
            torch.testing.assert_close(outputs["own"], losses)
            torch.testing.assert_close(outputs["loss"], losses.mean())
            assert outputs["word"] == ["w"] * 4
            logged = self.trainer.callback_metrics
            for name in ("mean", "min", "max", "sum"):
                torch.testing.assert_close(logged[name], getattr(losses, name)())
            torch.testing.assert_close(logged["positional"], losses.max())
            assert logged["two"] == 2

    for engine in ("auto", "loop", "joint", "vmap"):
        train("sgd", Telling, rounds=3, engine=engine)
