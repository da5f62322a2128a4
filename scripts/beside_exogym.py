"""Times steps of simulated training here and in EXO Gym, side by side: DDP and DiLoCo, four workers under AdamW.

    git clone https://github.com/exo-explore/gym && pip install einops boto3
    sed -i s/lo0/lo/ gym/exogym/utils.py          # on Linux: it names the loopback of macOS
    python scripts/beside_exogym.py gym

A step is the difference of two fits of many and of few steps, so that neither start nor end counts. EXO Gym runs a
process a worker, of one thread each; bitbudget runs all workers in one process, with a thread a core. DiLoCo takes 10
steps between rounds.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bench
from bench.errors import InputError
from bench.recipes import load_recipe
from bench.suite.models.gpt import GPT
from bench.suite.models.mlp import mlp
from bench.suite.scripts.bare import BARE
from bench.suite.scripts.cli import guarded

WORKERS, EVERY, LR = 4, 10, 1e-3


class WithLoss(nn.Module):
    """A network that returns its loss of a batch, as EXO Gym asks for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self.network(inputs).flatten(0, -2), labels.flatten())


class Module(LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = WithLoss(network)

    def training_step(self, batch: Any) -> Tensor:
        return self.network(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=LR)


@dataclass(frozen=True)
class Case:
    """A network, its data, the batch of a worker, and the steps of the two fits."""

    network: Callable[[], nn.Module]
    data: TensorDataset
    batch_size: int
    few: int
    many: int


def cases() -> dict[str, Case]:
    """Random data in the shapes of MNIST and of 128 characters: what they are does not matter for time."""
    images = TensorDataset(torch.randn(20_000, 784), torch.randint(10, (20_000,)))
    text = TensorDataset(*torch.randint(65, (2, 4_000, 128)))
    return {"FC-MNIST": Case(mlp, images, 10, 100, 500), "GPT": Case(GPT, text, 8, 10, 40)}


def ours(case: Case, method: str, num_steps: int) -> None:
    """Fit so many steps here."""
    diloco = load_recipe("diloco")
    every = EVERY if method == "DiLoCo" else 1
    strategy = (
        bench.CompressedStrategy(diloco, workers=WORKERS, num_steps=EVERY)
        if method == "DiLoCo"
        else bench.CompressedStrategy("sgd", workers=WORKERS)
    )
    loader = DataLoader(case.data, batch_size=WORKERS * case.batch_size * every, shuffle=True, drop_last=True)
    trainer = Trainer(strategy=strategy, accelerator="cpu", **{**BARE, "max_steps": num_steps // every})
    trainer.fit(Module(case.network()), loader)


def theirs(case: Case, method: str, num_steps: int) -> None:
    """Fit so many steps in EXO Gym, without evaluations or logs."""
    from exogym.strategy.diloco import DiLoCoStrategy  # pyright: ignore[reportMissingImports]
    from exogym.strategy.optim import OptimSpec  # pyright: ignore[reportMissingImports]
    from exogym.strategy.strategy import SimpleReduceStrategy  # pyright: ignore[reportMissingImports]
    from exogym.trainer import Trainer as Gym  # pyright: ignore[reportMissingImports]

    optimizer = OptimSpec(torch.optim.AdamW, lr=LR)
    strategy = DiLoCoStrategy(optimizer, H=EVERY) if method == "DiLoCo" else SimpleReduceStrategy(optimizer)
    Gym(WithLoss(case.network()), case.data, case.data, device="cpu").fit(
        num_epochs=100, strategy=strategy, num_nodes=WORKERS, max_steps=num_steps, batch_size=case.batch_size,
        minibatch_size=case.batch_size, val_size=0, disable_logging=True,
    )  # fmt: skip


def step_ms(fit: Callable[[Case, str, int], None], case: Case, method: str) -> float:
    """Milliseconds a step of all workers."""
    took = []
    for num_steps in (case.few, case.many):
        start = time.perf_counter()
        fit(case, method, num_steps)
        took.append(time.perf_counter() - start)
    return 1e3 * (took[1] - took[0]) / (case.many - case.few)


def beside(folder: Path) -> None:
    """Print a line for each network and method.

    Raises:
        InputError: EXO Gym is not there.
    """
    if not (folder / "exogym" / "trainer.py").exists():
        raise InputError(f"{folder}: no EXO Gym; a clone of github.com/exo-explore/gym is needed")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that it starts
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder.resolve()), *sys.path])
    sys.path.insert(0, str(folder.resolve()))
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{'':<10}{'':<8}{'EXO Gym, ms a step':>20}{'bitbudget':>12}{'ratio':>8}")
    for name, case in cases().items():
        for method in ("DDP", "DiLoCo"):
            other, own = step_ms(theirs, case, method), step_ms(ours, case, method)
            print(f"{name:<10}{method:<8}{other:>20.1f}{own:>12.1f}{other / own:>8.1f}", flush=True)


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    guarded(lambda: beside(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
