"""Small problems, and a function that trains on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.compressors import WarmUp
from bench.estimators.base import Estimator
from bench.recipes import load_recipe
from bench.runs.columns import MEASURED
from bench.strategies.processes import CompressedDDPStrategy
from bench.strategies.simulated import CompressedStrategy
from bench.suite.scripts.bare import BARE

QUIET: dict[str, Any] = {"accelerator": "cpu", **BARE}


def counted(costs: Mapping[str, Any]) -> dict[str, Any]:
    """A ledger, or a row of a history, without what only real processes measure."""
    return {name: cost for name, cost in costs.items() if name not in MEASURED}


class Toy(lightning.LightningModule):
    """Two linear layers under cross-entropy, plain SGD."""

    def __init__(self, lr: float = 0.05, dropout: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        layers = [nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)]
        self.network = nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))

    def training_step(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.network(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Normed(Toy):
    """`Toy` with batch norm between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


class Dyadic(lightning.LightningModule):
    """Loss ⟨w, x⟩ + ⟨v, x²⟩ over samples of small integers, γ = 1/4: exact in floats, so the same on every machine.

    The gradients, the means of x and of the first 32 entries of x², do not depend on the parameters.
    """

    def __init__(self, lr: float = 0.25) -> None:
        super().__init__()
        self.lr = lr
        self.w = nn.Parameter(torch.zeros(96))
        self.v = nn.Parameter(torch.zeros(32))

    def training_step(self, batch: Any) -> Tensor:
        (x,) = batch
        return (x @ self.w + x[:, :32] ** 2 @ self.v).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Bilinear(Dyadic):
    """Loss uᵀWv + ⟨b, z⟩ over samples (u, v, z). The gradient of W, the mean of u vᵀ, does not depend on W."""

    def __init__(self, lr: float = 0.25) -> None:
        super().__init__(lr)
        self.w, self.v = nn.Parameter(torch.zeros(8, 12)), nn.Parameter(torch.zeros(3))

    def training_step(self, batch: Any) -> Tensor:
        (x,) = batch
        return ((x[:, :8] @ self.w) * x[:, 8:20]).sum(dim=1).mean() + (x[:, 20:23] @ self.v).mean()


class Deal(torch.utils.data.Sampler):
    """A fixed order: round t's batch of all ranks, split in rank order, gives each rank what its process loads."""

    def __init__(self, num_samples: int, num_workers: int, ranks: Sequence[int], batch_size: int) -> None:
        order = torch.arange(num_samples).view(-1, num_workers, batch_size)
        self.batches = order[:, list(ranks)].flatten(1).tolist()

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def toy_data(num_samples: int = 480) -> TensorDataset:
    """Samples for `Toy`: 20 normal features, one of three classes."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(num_samples, 20, generator=generator)
    teacher = torch.randn(20, 3, generator=generator)
    return TensorDataset(x, (x @ teacher).argmax(dim=1))


def dyadic_data(num_samples: int = 480) -> TensorDataset:
    """Samples for `Dyadic` and `Bilinear`: 96 small integers."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randint(-9, 10, (num_samples, 96), generator=generator).float()
    return TensorDataset(x * torch.randint(0, 2, (num_samples, 96), generator=generator))


@dataclass
class Trained:
    """The outcome of a run."""

    weights: Tensor
    ledger: dict[str, Any]
    strategy: Any
    module: Any


def loader(data: TensorDataset, num_workers: int, ranks: Sequence[int], batch_size: int = 4) -> DataLoader:
    """Batches of these ranks, in rank order."""
    return DataLoader(data, batch_sampler=Deal(len(data), num_workers, ranks, batch_size))


def train(
    algorithm: Algorithm | str,
    module: Callable[[], lightning.LightningModule] = Toy,
    data: TensorDataset | None = None,
    workers: int = 4,
    rounds: int = 30,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    engine: Any = "auto",
    adversary: Adversary | None = None,
    estimator: Estimator | None = None,
    batch_size: int = 4,
    **trainer_options: Any,
) -> Trained:
    """Simulate training for a number of rounds, from seed 3."""
    data = data or toy_data()
    algorithm = shortened(algorithm)
    lightning.seed_everything(3, verbose=False)
    model = module()
    strategy = CompressedStrategy(algorithm, workers=workers, engine=engine, adversary=adversary, estimator=estimator)
    options = {**QUIET, "max_steps": rounds, **trainer_options}
    trainer = Trainer(strategy=strategy, callbacks=list(callbacks), **options)
    batches = loader(data, workers, range(workers), batch_size)
    trainer.fit(model, batches, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return Trained(flat(model), counted(strategy.ledger.state_dict()), strategy, model)


def shortened(algorithm: Algorithm | str) -> Algorithm:
    """A recipe, or the one of that name, with a warm-up of two rounds and two local steps if it has many: small batches
    can be cut for two."""
    recipe = load_recipe(algorithm) if isinstance(algorithm, str) else algorithm
    if isinstance(warm := recipe.compressor, WarmUp) and warm.num_rounds > 20:
        short = replace(warm, num_rounds=2)
        recipe = replace(recipe, compressor=short, downlink=short if recipe.downlink == warm else recipe.downlink)
    if (steps := recipe.local_steps) is None or steps.num_steps < 8:
        return recipe
    return replace(recipe, local_steps=replace(steps, num_steps=2))


def flat(module: nn.Module) -> Tensor:
    """All parameters as one vector (d,), copied."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class Gauged(Callback):
    """Makes every round report the norms of gradients and compression errors."""

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        assert isinstance(trainer.strategy, CompressedStrategy | CompressedDDPStrategy)
        trainer.strategy.gauged = True


class Recorder(Callback):
    """Keeps for every round who uploaded, a copy of the ledger after it, and the direction given to the optimizer."""

    def __init__(self) -> None:
        self.uploads: list[list[bool]] = []
        self.ledgers: list[dict[str, float]] = []
        self.directions: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        strategy = trainer.strategy
        assert isinstance(strategy, CompressedStrategy | CompressedDDPStrategy)
        self.uploads.append(strategy.last_report.uploaded.tolist())
        self.ledgers.append(counted(strategy.ledger.state_dict()))
        if strategy.algorithm.local_steps is not None:
            self._keep(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        assert isinstance(trainer.strategy, CompressedStrategy | CompressedDDPStrategy)
        if trainer.strategy.algorithm.local_steps is None:  # otherwise called at every local step
            self._keep(pl_module)

    def _keep(self, module: nn.Module) -> None:
        self.directions.append(torch.cat([p.grad.flatten().clone() for p in module.parameters()]))  # pyright: ignore[reportOptionalMemberAccess]
