"""What a round costs: milliseconds, and the ratio to one plain PyTorch step on the joint batch, in the same run.

    python scripts/benchmark.py                    # every recipe, then packing and vote
    python scripts/benchmark.py sgd sasg --rounds 2000
    python scripts/benchmark.py packing vote       # signs of a ResNet18 against plain copies; votes of 1 to 31 workers

Ten workers × batch 10 on 784-512-10 through the Trainer, everything included but evaluation, one thread. Chunks
of rounds alternate with chunks of plain steps, so that whatever else the machine does falls on both; the ratio is
the median over chunks. MNIST where data/mnist.npz exists, else the embedded digits: the cost is the same.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from tqdm.auto import tqdm

import bench
from bench import signs
from bench.aggregators import MajorityVote
from bench.compressors import Sign
from bench.message import Message
from bench.module import Classifier
from bench.noise import Noise
from datamodules.digits import Digits
from datamodules.mnist import MNIST
from models.mlp import mlp

CHUNK = 50
RESNET18 = 11_173_962  # parameters
VOTERS = (1, 3, 7, 15, 31)


class PlainSteps:
    """Forward, backward and SGD on the joint batch of all workers, in plain PyTorch."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels
        self.network = mlp()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.images), self.labels).backward()
        self.optimizer.step()


class Stopwatch(Callback):
    """Times chunks of rounds and, after each, as many plain steps. `progress` moves between them."""

    def __init__(self, progress: tqdm) -> None:
        self.progress = progress
        self.rounds: list[float] = []  # seconds a round, a chunk each
        self.steps: list[float] = []  # seconds a plain step, a chunk each

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        images, labels = trainer.datamodule.train[torch.arange(100)]  # pyright: ignore[reportAttributeAccessIssue]
        self.plain = PlainSteps(images, labels)
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % CHUNK:
            return
        rounds_done = time.perf_counter()
        for _ in range(CHUNK):
            self.plain()
        steps_done = time.perf_counter()
        self.rounds.append((rounds_done - self.started) / CHUNK)
        self.steps.append((steps_done - rounds_done) / CHUNK)
        self.progress.update(CHUNK)
        self.started = time.perf_counter()


def measure(recipe: str, num_rounds: int, progress: tqdm) -> Stopwatch:
    lightning.seed_everything(1, verbose=False)
    stopwatch = Stopwatch(progress)
    trainer = Trainer(
        strategy=bench.CompressedStrategy(recipe, workers=10),
        accelerator="cpu",
        max_steps=num_rounds,
        callbacks=[stopwatch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    data = MNIST() if Path("data/mnist.npz").exists() else Digits()
    trainer.fit(Classifier(mlp(), partial(torch.optim.SGD, lr=0.005)), datamodule=data)
    return stopwatch


def packing(repeats: int = 30) -> None:
    """Signs to bits and back, for as many entries as ResNet18 has, against a copy of the vector."""
    x = torch.randn(1, RESNET18)
    out, (bits, _) = torch.empty_like(x), signs.pack(x)
    parts = (lambda: out.copy_(x), lambda: signs.pack(x), lambda: signs.unpack(bits, out))
    times = [[_milliseconds(part) for part in parts] for _ in range(repeats)]
    copy, pack, unpack = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median((p + u) / c for c, p, u in times)
    print(f"packing {RESNET18:,} signs: copy {copy:.2f} ms, pack {pack:.2f}, unpack {unpack:.2f}, ratio {ratio:.2f}")


def vote(repeats: int = 30) -> None:
    """The server's part of a majority vote on ResNet18: count M messages, decide, and pack the broadcast."""
    x = torch.randn(max(VOTERS), RESNET18)
    messages = {m: Sign().compress(x[:m], (RESNET18,), ()) for m in VOTERS}
    server = Noise(0, 0, max(VOTERS))

    def answer(message: Message) -> None:
        Sign().compress(MajorityVote().aggregate(message, None, server)[None], (RESNET18,), ())

    times = [[_milliseconds(partial(answer, message)) for message in messages.values()] for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    for m, milliseconds in zip(VOTERS, medians, strict=True):
        print(f"vote of {m:>2} on {RESNET18:,} entries: {milliseconds:>7.2f} ms, {milliseconds / m:>6.2f} a voter")


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


PARTS = {"packing": packing, "vote": vote}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=[*bench.recipe_names(), *PARTS], help="default: all")
    parser.add_argument("--rounds", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    names = [*bench.recipe_names(), *PARTS]
    if unknown := set(args.recipes) - set(names):
        parser.error(f"unknown recipe {', '.join(sorted(unknown))}; there is {', '.join(names)}")
    if recipes := [name for name in args.recipes if name not in PARTS]:
        print(f"{'recipe':<16}{'ms a round':>12}{'ms a plain step':>18}{'ratio':>8}")
    for recipe in recipes:
        num_rounds = args.rounds + CHUNK
        with tqdm(desc=recipe, total=num_rounds, unit="round", leave=False, disable=None) as progress:
            watch = measure(recipe, num_rounds, progress)
        rounds, steps = watch.rounds[1:], watch.steps[1:]  # the first chunk warms up
        ratio = statistics.median(r / s for r, s in zip(rounds, steps, strict=True))
        print(
            f"{recipe:<16}{statistics.median(rounds) * 1e3:>12.2f}{statistics.median(steps) * 1e3:>18.2f}{ratio:>8.2f}"
        )
    for name in args.recipes:
        if name in PARTS:
            PARTS[name]()


if __name__ == "__main__":
    main()
