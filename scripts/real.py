"""Times rounds between real processes on this machine, in comparison with DDP in plain PyTorch and under Lightning."""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

import bench
from bench.runs.module import Classifier
from models.mlp import mlp
from scripts.bare import BARE, forked, keep_quiet

BATCH, WARM_UP, PASSES = 10, 15, 3
RECIPES = ("sgd", "half", "sparse", "sasg", "signsgd_mv", "powersgd")
COLLECTIVES = ("gather", "sharded")

Contender = Callable[[int, int], list[float]]
"""(M, rounds) -> the seconds of each round of this process."""


def real(sizes: tuple[int, ...] = (2, 4), rounds: int = 150) -> None:
    """Print the median time of a round of FC-MNIST, batch 10 a worker, over gloo on loopback.

    All contenders run in the same processes, in turn and several times each.
    """
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "times.pt"
            forked(size, _race, size, rounds, file)
            _print(size, torch.load(file))


def _print(size: int, times: dict[str, list[float]]) -> None:
    base = statistics.median(times["ddp"])
    print(f"{size} processes".ljust(30) + f"{'ms a round':>12}{'of ddp':>9}")
    for name, seconds in times.items():
        took = statistics.median(seconds)
        print(f"{name:<30}{took * 1e3:>12.2f}{took / base:>9.2f}", flush=True)


def _race(rank: int, size: int, rounds: int, file: Path) -> None:
    keep_quiet()
    contenders: dict[str, Contender] = {
        "ddp under Lightning": _lightning(lambda: DDPStrategy(process_group_backend="gloo"))
    }
    for recipe in RECIPES:
        for collective in COLLECTIVES if recipe != "powersgd" else ("gather",):
            make = partial(bench.CompressedDDPStrategy, recipe, collective=collective)
            contenders[f"{recipe} {collective}"] = _lightning(make)
    first = contenders["ddp under Lightning"](size, WARM_UP + 1)  # makes the process group
    assert first
    contenders = {
        "ddp": partial(_bare, None),
        "ddp, fp16 hook": partial(
            _bare, lambda model: model.register_comm_hook(None, default_hooks.fp16_compress_hook)
        ),
        "ddp, PowerSGD hook": partial(_bare, _with_powersgd),
        **contenders,
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    turns = [turn for _ in range(PASSES) for turn in contenders.items()]
    for name, contender in tqdm(turns, desc=f"{size} processes", leave=False, disable=None if rank == 0 else True):
        times[name] += contender(size, rounds)
    if rank == 0:
        torch.save(times, file)


def _batches(rounds: int) -> DataLoader:
    generator = torch.Generator().manual_seed(dist.get_rank() if dist.is_initialized() else 0)
    x = torch.rand(rounds * BATCH, 1, 28, 28, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(10, (len(x),), generator=generator)), batch_size=BATCH)


def _bare(hook: Callable[[Any], None] | None, size: int, rounds: int) -> list[float]:
    """The seconds of each round of a plain loop with PyTorch's DDP."""
    model = DistributedDataParallel(mlp())
    if hook is not None:
        hook(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    watch = Stopwatch()
    for x, y in _batches(rounds):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        watch.lap()
    return watch.seconds


def _with_powersgd(model: Any) -> None:
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2)
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


def _lightning(make: Callable[[], Any]) -> Contender:
    """A contender that times the rounds of a Trainer under a strategy."""

    def run(size: int, rounds: int) -> list[float]:
        watch = Stopwatch()
        module = Classifier(mlp(), partial(torch.optim.SGD, lr=0.05))
        trainer = Trainer(strategy=make(), devices=size, accelerator="cpu", max_epochs=1, callbacks=[watch], **BARE)
        trainer.fit(module, _batches(rounds))
        return watch.seconds

    return run


class Stopwatch(Callback):
    """The seconds of each round after the first `WARM_UP` ones."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.laps = 0
        self.last = time.perf_counter()

    def lap(self) -> None:
        now = time.perf_counter()
        self.laps += 1
        if self.laps > WARM_UP:
            self.seconds.append(now - self.last)
        self.last = now

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.lap()
