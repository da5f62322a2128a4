"""Measures the time of a round, and its ratio to one plain PyTorch step on the joint batch in the same run.

    python scripts/benchmark.py                    # every recipe, then every part
    python scripts/benchmark.py sgd sasg --rounds 2000
    python scripts/benchmark.py sgd sparse lasg sasg --model resnet18 --threads 2 --rounds 12
    python scripts/benchmark.py sgd --model resnet18 --device cuda --engine vmap --precision bf16-mixed
    python scripts/benchmark.py packing vote       # packing ResNet18's signs against a copy; votes of 1 to 31 workers
    python scripts/benchmark.py drawing            # GSpar, UniSp, QSGD and TernGrad against a plain copy
    python scripts/benchmark.py coding             # the codes of messages: bits, and the time of each pass
    python scripts/benchmark.py lowrank            # PowerSGD on ResNet18's gradient against PyTorch's own
    python scripts/benchmark.py logging            # time per round of history, gauges and W&B
    python scripts/benchmark.py real               # two and four real processes against DDP and its hooks

Rounds are of ten workers × batch 10 through the Trainer, everything included but evaluation; by default on 784-512-10
with one thread. Chunks of rounds alternate with chunks of plain steps, so that other load on the machine affects both
alike; the ratio is the median over chunks. Plain steps are always in single precision. Images are MNIST or CIFAR-10
from data/ if they are there, else scikit-learn's digits or noise, which cost the same.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import nn
from tqdm.auto import tqdm

import bench
from bench.errors import InputError
from bench.gradients.engines import EngineName
from bench.runs.module import Classifier
from bench.suite.datamodules.arrays import ImageArrays
from bench.suite.datamodules.cifar import CIFAR10
from bench.suite.datamodules.digits import Digits
from bench.suite.datamodules.images import ImageData
from bench.suite.datamodules.mnist import MNIST
from bench.suite.models.mlp import mlp
from bench.suite.models.resnet import resnet18, resnet20
from bench.suite.scripts.bare import fit, keep_quiet
from bench.suite.scripts.cli import guarded
from bench.suite.scripts.parts import PARTS

WARM_UP = 12  # rounds; lazy rules upload in all of the first ten


@dataclass(frozen=True)
class Case:
    """A network, its data, and the number of rounds in a chunk."""

    network: Callable[[], nn.Module]
    data: Callable[[], ImageData]
    chunk: int


class Noise32(ImageData):
    """Noise in the shape of CIFAR-10, for machines without the data."""

    mean, std, usual = CIFAR10.mean, CIFAR10.std, CIFAR10.usual

    def load(self) -> ImageArrays:
        images = np.random.default_rng(0).integers(0, 256, (5000, 32, 32, 3), np.uint8)
        labels = (np.arange(5000) % 10).astype(np.uint8)
        return ImageArrays(images, labels, images[:100], labels[:100])


def digits() -> ImageData:
    return MNIST() if Path("data/mnist.npz").exists() else Digits()


def photographs() -> ImageData:
    return CIFAR10() if Path("data/cifar10.npz").exists() else Noise32()


CASES = {
    "mlp": Case(mlp, digits, chunk=50),
    "resnet20": Case(resnet20, photographs, chunk=5),
    "resnet18": Case(resnet18, photographs, chunk=3),
}


class PlainSteps:
    """Forward, backward and SGD on the joint batch of all workers, in plain PyTorch."""

    def __init__(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels
        self.network = network.to(images.device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.images), self.labels).backward()
        self.optimizer.step()


class Stopwatch(Callback):
    """Times chunks of rounds and, after each, as many plain steps. `progress` is updated outside the timed spans."""

    def __init__(self, case: Case, progress: tqdm) -> None:
        self.case = case
        self.progress = progress
        self.rounds: list[float] = []  # seconds per round, one value per chunk
        self.steps: list[float] = []  # seconds per plain step, one value per chunk

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        images, labels = trainer.datamodule.test[torch.arange(100)]  # pyright: ignore[reportAttributeAccessIssue]
        self.plain = PlainSteps(self.case.network(), images, labels)
        self.started = self._now()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        chunk = self.case.chunk
        if trainer.global_step % chunk:
            return
        rounds_done = self._now()
        for _ in range(chunk):
            self.plain()
        steps_done = self._now()
        self.rounds.append((rounds_done - self.started) / chunk)
        self.steps.append((steps_done - rounds_done) / chunk)
        self.progress.update(chunk)
        self.started = self._now()

    def _now(self) -> float:
        if self.plain.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(
    recipe: bench.Algorithm | str, case: Case, engine: EngineName, num_rounds: int, progress: tqdm, **options: Any
) -> Stopwatch:
    lightning.seed_everything(1, verbose=False)
    stopwatch = Stopwatch(case, progress)
    module = Classifier(case.network(), partial(torch.optim.SGD, lr=1e-3))  # at which no method diverges
    strategy = bench.CompressedStrategy(recipe, workers=10, engine=engine)
    fit(strategy, module, case.data(), num_rounds, [stopwatch], **options)
    return stopwatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=[*bench.recipe_names(), *PARTS], help="default: all")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--model", choices=CASES, default="mlp")
    parser.add_argument("--engine", choices=get_args(EngineName), default="auto")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="32-true", help="or bf16-mixed")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    keep_quiet()
    names = [*bench.recipe_names(), *PARTS]
    if unknown := set(args.recipes) - set(names):
        parser.error(f"unknown recipe {', '.join(sorted(unknown))}; there is {', '.join(names)}")
    most = os.cpu_count() or 1
    if not 1 <= args.threads <= most:
        parser.error(f"--threads: {args.threads}; from 1 to {most} are needed")
    torch.set_num_threads(args.threads)
    guarded(lambda: benchmark(args))


def refuse_rounds(args: argparse.Namespace) -> None:
    """Raise InputError if there are too few rounds to time."""
    if args.rounds < (chunk := CASES[args.model].chunk):
        raise InputError(f"--rounds: {args.rounds}; at least {chunk} are needed, one chunk of {args.model}")


def plain_arguments(recipes: list[bench.Algorithm], num_rounds: int) -> argparse.Namespace:
    """The arguments that time some recipes on FC-MNIST, all else as by default."""
    return argparse.Namespace(
        recipes=recipes, rounds=num_rounds, model="mlp", engine="auto", device="cpu", precision="32-true"
    )


def _timed(recipe: bench.Algorithm | str) -> list[bench.Algorithm]:
    """The recipe, with one local step if it takes them; then, if its compressor has a warm-up, as it is after that."""
    first = bench.load_recipe(recipe) if isinstance(recipe, str) else recipe
    if first.local_steps is not None:
        first = replace(first, local_steps=replace(first.local_steps, num_steps=1))
    if first.compressor.settled is first.compressor:
        return [first]
    return [first, replace(first.settled, name=f"{first.name}, settled")]


def benchmark(args: argparse.Namespace) -> None:
    """Print a line per recipe, then the measurements of the parts."""
    if recipes := [recipe for recipe in args.recipes if recipe not in PARTS]:
        print(f"{'recipe':<16}{'ms a round':>12}{'ms a plain step':>18}{'ratio':>8}")
    refuse_rounds(args)
    case = CASES[args.model]
    options = {"accelerator": args.device, "precision": args.precision}
    num_first = -(-WARM_UP // case.chunk)
    for recipe in chain.from_iterable(map(_timed, recipes)):
        num_rounds = args.rounds + num_first * case.chunk
        with tqdm(desc=recipe.name, total=num_rounds, unit="round", leave=False, disable=None) as progress:
            watch = measure(recipe, case, args.engine, num_rounds, progress, **options)
        rounds, steps = watch.rounds[num_first:], watch.steps[num_first:]
        ratio = statistics.median(r / s for r, s in zip(rounds, steps, strict=True))
        round_ms, step_ms = (1e3 * statistics.median(times) for times in (rounds, steps))
        print(f"{recipe.name:<16}{round_ms:>12.2f}{step_ms:>18.2f}{ratio:>8.2f}", flush=True)
    for name in args.recipes:
        if name in PARTS:
            PARTS[name]()


if __name__ == "__main__":
    main()
