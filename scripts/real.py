"""Times rounds between real processes on this machine, in comparison with DDP in plain PyTorch and under Lightning."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from bench.suite.models.mlp import mlp
from bench.suite.scripts.bare import BARE, forked, keep_quiet

BATCH, WARM_UP, PASSES = 10, 15, 3
COLLECTIVES = {
    "sgd": ("gather", "sharded", "allreduce"),
    "half": ("gather", "sharded", "allreduce"),
    "powersgd": ("gather", "sharded", "allreduce"),
    "sparse": ("gather", "sharded"),
    "sasg": ("gather", "sharded"),
    "signsgd_mv": ("gather", "sharded"),
}


class Raced(NamedTuple):
    """What a contender took, as one process sees it.

    Attributes:
        seconds: of each round.
        waited_s, measured_s, sent_bytes: of a round on average, as the ledger has them; NaN where there is no ledger.
    """

    seconds: list[float]
    waited_s: float = math.nan
    measured_s: float = math.nan
    sent_bytes: float = math.nan


Contender = Callable[[int, int], Raced]
"""Takes M and the number of rounds."""


def real(sizes: tuple[int, ...] = (2, 4), rounds: int = 150) -> None:
    """Print the median time of a round of FC-MNIST, batch 10 a worker, over gloo on loopback.

    All contenders run in the same processes, in turn and several times each.
    """
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "times.pt"
            forked(size, _race, size, rounds, file)
            _print(size, torch.load(file, weights_only=False))


def _print(size: int, raced: dict[str, list[Raced]]) -> None:
    took = {name: statistics.median(s for turn in turns for s in turn.seconds) for name, turns in raced.items()}
    print(f"{size} processes".ljust(30) + "".join(f"{title:>12}" for title in TITLES))
    for name, turns in raced.items():
        ours = [statistics.median(getattr(turn, figure) for turn in turns) for figure in Raced._fields[1:]]
        cells = [
            f"{took[name] * 1e3:.2f}",
            f"{took[name] / took['ddp']:.2f}",
            f"{took[name] / took['ddp under Lightning']:.2f}",
            *(f"{figure * factor:.3g}" if figure == figure else "" for figure, factor in zip(ours, UNITS, strict=True)),
        ]
        print(f"{name:<30}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


TITLES = ("ms a round", "of ddp", "of Lightning", "ms waited", "ms transit", "kB sent")
UNITS = (1e3, 1e3, 1e-3)


def _race(rank: int, size: int, rounds: int, file: Path) -> None:
    keep_quiet()
    fp16 = partial(DDPStrategy, process_group_backend="gloo", ddp_comm_hook=default_hooks.fp16_compress_hook)
    contenders: dict[str, Contender] = {
        "ddp under Lightning": _lightning(partial(DDPStrategy, process_group_backend="gloo")),
        "fp16 hook under Lightning": _lightning(fp16),
    }
    for recipe, collectives in COLLECTIVES.items():
        for collective in collectives:
            make = partial(bench.CompressedDDPStrategy, recipe, collective=collective)
            contenders[f"{recipe} {collective}"] = _lightning(make)
    first = contenders["ddp under Lightning"](size, WARM_UP + 1)  # makes the process group
    assert first.seconds
    contenders = {
        "ddp": partial(_bare, None),
        "ddp, fp16 hook": partial(
            _bare, lambda model: model.register_comm_hook(None, default_hooks.fp16_compress_hook)
        ),
        "ddp, PowerSGD hook": partial(_bare, _with_powersgd),
        **contenders,
    }
    raced: dict[str, list[Raced]] = {name: [] for name in contenders}
    turns = [turn for _ in range(PASSES) for turn in contenders.items()]
    for name, contender in tqdm(turns, desc=f"{size} processes", leave=False, disable=None if rank == 0 else True):
        raced[name].append(contender(size, rounds))
    if rank == 0:
        torch.save(raced, file)


def _batches(rounds: int) -> DataLoader:
    generator = torch.Generator().manual_seed(dist.get_rank() if dist.is_initialized() else 0)
    x = torch.rand(rounds * BATCH, 1, 28, 28, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(10, (len(x),), generator=generator)), batch_size=BATCH)


def _bare(hook: Callable[[Any], None] | None, size: int, rounds: int) -> Raced:
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
    return Raced(watch.seconds)


def _with_powersgd(model: Any) -> None:
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2)
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


def _lightning(make: Callable[[], Any]) -> Contender:
    """A contender that times the rounds of a Trainer under a strategy."""

    def run(size: int, rounds: int) -> Raced:
        watch, strategy = Stopwatch(), make()
        module = Classifier(mlp(), partial(torch.optim.SGD, lr=0.05))
        trainer = Trainer(strategy=strategy, devices=size, accelerator="cpu", max_epochs=1, callbacks=[watch], **BARE)
        trainer.fit(module, _batches(rounds))
        if not isinstance(strategy, bench.CompressedDDPStrategy):
            return Raced(watch.seconds)
        ledger = strategy.ledger
        costs = (ledger.waited_s, ledger.measured_s, ledger.sent_bytes[strategy.global_rank])
        return Raced(watch.seconds, *(cost / ledger.rounds for cost in costs))

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
