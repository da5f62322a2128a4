"""Any LightningModule, under any recipe, as Lightning users write them."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, GradientAccumulationScheduler
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
from torch.nn.utils.prune import l1_unstructured
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import SumMetric

import bench
from bench.errors import InputError, NonFiniteError
from bench.estimators.svrg import SVRG
from bench.gradients.batches import Served
from bench.kernels.noise import Noise
from bench.tests.found import RECIPES
from bench.tests.toys import QUIET, Deal, Toy, flat, toy_data, train
from bench.tests.worlds import M, run_processes


class Convolutional(lightning.LightningModule):
    """What the suite never heard of: convolutions, layer norm, dicts for batch and output, Adam, a schedule, logs."""

    def __init__(self) -> None:
        super().__init__()
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
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
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
    module = Convolutional()
    before = flat(module)
    trainer = Trainer(strategy=name, max_epochs=4, gradient_clip_val=1.0, **QUIET)
    recipe = RECIPES[name]
    with pytest.warns(UserWarning, match="no gradient reached unused") if recipe.moves_zeros else nullcontext():
        trainer.fit(module, DataLoader(Pictures(), batch_size=20))
    assert not torch.equal(flat(module), before)
    x = torch.tensor([[0.0] * 7 + [1.0]])
    segments = (8,) if recipe.granularity == "model" else (7, 1)
    if not recipe.compressor.compress(x, segments, [Noise(0, 0, 0)]).dense()[:, :7].any():  # a sign or grid has no zero
        assert torch.equal(module.unused, torch.ones(7))
    assert trainer.callback_metrics["train_loss"] > 0
    assert trainer.strategy.ledger.rounds == 16  # pyright: ignore[reportAttributeAccessIssue]


def test_one_worker_is_plain_training() -> None:
    """SGD with one worker is the loop everybody writes; the gradients are autograd's, bit for bit."""
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
    """A round of SGD is a plain step on the joint batch, at the same γ."""
    lightning.seed_everything(3, verbose=False)
    module = Toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for indices in Deal(480, 4, range(4), 4).batches[:30]:
        optimizer.zero_grad()
        module.training_step(toy_data()[indices]).backward()
        optimizer.step()
    torch.testing.assert_close(train("sgd").weights, flat(module))


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

    for module, engine in (
        (Toy, "joint"),
        (Logging, "joint"),
        (Branching, "loop"),
        (Tied, "loop"),  # the linear engine would miss a gradient, however small
        (Collecting, "loop"),
        (Buffered, "loop"),
        (lambda: Toy(dropout=0.1), "loop"),
    ):
        assert train("sgd", module, rounds=2).strategy.fitting.engine.name == engine
    assert torch.equal(train("sgd", Logging).weights, train("sgd").weights)
    collected = train("sgd", Collecting, rounds=5).module.losses
    assert torch.stack(collected).shape == (5 * 4,), "a trial leaves nothing behind"


def test_stale_passes_do_not_log() -> None:
    """What a step logs is its own loss, the workers' mean, not that of a pass at old parameters."""
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


class Counting(Toy):
    """Keeps the losses of its steps, counts them with a metric, and draws, which leaves it to the loop."""

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
    """What a step keeps is of the round's own batches, not of trials, passes at old parameters or at an anchor."""
    trained = train("lasg", Counting, estimator=estimator)
    assert trained.ledger["num_backwards"] > 30 * 4
    assert len(trained.module.losses) == trained.module.count.compute() == 30 * 4


def test_who_holds_a_list_or_a_hook_goes_on_holding_it() -> None:
    """Passes at old parameters put contents back, and leave objects what they are."""
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
    assert len(seen) == watching.num_seen > 20 * 4


def test_lightning_goes_on_working() -> None:
    """Clipping clips the direction; a callback sees it; the weights stay parameters of the module."""

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

    class Unstepped(Toy):
        def configure_optimizers(self) -> Any:
            return None

    class Thawing(Callback):
        """As `BaseFinetuning` does: layers are frozen at first."""

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
        (Toy, {"callbacks": [later], "estimator": SVRG()}, "accumulate_grad_batches: 8; with SVRG 1 is needed"),
        (Toy, {"callbacks": [Thawing()], "rounds": 40}, r"requires_grad: network\.0\.weight became True during fit"),
        (
            Backboned,
            {"callbacks": [BackboneFinetuning(10)]},
            "callbacks: BackboneFinetuning; what is trained is settled",
        ),
        (Toy, {"callbacks": [Exchanging()], "rounds": 40}, r"parameters: network\.2\.weight was added during fit"),
        (Manual, {}, "automatic_optimization"),
        (Backward, {}, "backward: overridden"),
        (Fetching, {}, "training_step: takes dataloader_iter; a batch is needed"),
        (Lazy, {}, r"parameters: network\.2\.weight has no shape yet"),
        (Complex, {}, r"parameters: phase is of torch\.complex64; real numbers are needed"),
        (Several, {}, "configure_optimizers: several; exactly 1 is needed"),
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


@pytest.mark.parametrize("name", bench.recipe_names())
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_broken_gradient_is_named(name: str, bad: float) -> None:
    """In warm-up and when a rule could have skipped over it."""
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


class Kinds(Toy):
    """Batch norm, evaluated on batches that even workers serve, then odd ones, then all; notes with what."""

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
    """It is evaluated with the average of their statistics; afterwards the module has that of all again."""
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


class Late(Toy):
    """Does what the joint engine cannot from the sixth round on."""

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
            x = x + float(np.random.rand())  # noqa: NPY002  as people do
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
    """Gives a layer a mask from the sixth round on, which makes its weight a product."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 5:
            l1_unstructured(pl_module.network[0], "weight", 0.3)


LATE = ("item", "branch", "dropout", "numpy", "constant", "keeps", "lists", "logs", "prunes")


@pytest.mark.filterwarnings("ignore:.*the loss of a batch does not depend")
@pytest.mark.parametrize("recipe", ["sgd", "sasg"])
@pytest.mark.parametrize("what", LATE)
def test_auto_never_ends_a_run(what: str, recipe: str) -> None:
    """A step that does what the chosen engine cannot is taken by the loop, which goes on: the same bits throughout."""
    runs = {}
    for engine in ("auto", "loop"):
        callbacks = [Pruning()] if what == "prunes" else []
        runs[engine] = train(recipe, lambda: Late(what), rounds=14, engine=engine, callbacks=callbacks)
    auto, loop = runs["auto"], runs["loop"]
    assert torch.equal(auto.weights, loop.weights)
    assert auto.ledger == loop.ledger
    assert auto.strategy.fitting.engine.name == ("joint" if what == "logs" else "loop")
    assert len(auto.module.kept) == len(loop.module.kept) == (9 * 4 if what in ("item", "lists") else 0)
    kept = [value for value in [*auto.module.kept, getattr(auto.module, "last", None)] if isinstance(value, Tensor)]
    assert not any(map(is_batchedtensor, kept))


def test_the_loop_goes_on_in_all_processes(tmp_path: Path) -> None:
    """Where one process's step failed; the report of that round tells the others."""

    class AtOne(Toy):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            loss = super().training_step(batch)
            if self.trainer.global_rank == 1 and batch_idx == 5:
                loss.item()
            return loss

    class Engines(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            with (tmp_path / f"engines-{trainer.global_rank}").open("a") as file:
                file.write(f"{trainer.strategy.fitting.engine.name}\n")  # pyright: ignore[reportAttributeAccessIssue]

    simulated = train("sasg", AtOne, workers=M, rounds=14)
    for process in run_processes(tmp_path, RECIPES["sasg"], AtOne, callbacks=[Engines()], rounds=14):
        assert torch.equal(process["weights"], simulated.weights)
    for rank in range(M):
        assert (tmp_path / f"engines-{rank}").read_text().split() == ["joint"] * 5 + ["loop"] * 9


@pytest.mark.parametrize("engine", ["joint", "loop"])
def test_parameters_that_no_loss_depends_on_are_named(engine: str) -> None:
    """Once, under recipes whose signs would move them."""

    class Idle(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(2, 2)

    with pytest.warns(UserWarning, match=r"signsgd_mv: no gradient reached idle\.weight, idle\.bias;") as told:
        train("signsgd_mv", Idle, rounds=5, engine=engine)
    assert sum("no gradient reached" in str(warning.message) for warning in told) == 1
    train("sparse_signsgd", Idle, rounds=5, engine=engine)


def test_sparse_adam() -> None:
    """Its rows are those that somebody's samples reached, as under plain Lightning."""

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
    """In rank order, under every engine; and what they log, by its reduction."""

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
