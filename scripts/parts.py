"""Measures parts of a round, most on a gradient as long as ResNet18's. scripts/benchmark.py runs them by name."""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning
import numpy as np
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_module
from lightning import Trainer
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import bench
from bench.aggregators import MajorityVote
from bench.compressors import QSGD, GSpar, PowerSGD, Sign, TernGrad, UniSp
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.round.codes import Codes
from bench.round.rates import Rate
from bench.round.server import Server
from bench.runs import history
from bench.runs.autosave import Autosave
from bench.runs.history import History
from bench.runs.module import Classifier
from bench.suite.models.resnet import resnet18
from bench.suite.scripts.bare import BARE, timed_ms
from bench.suite.scripts.coding import coding
from bench.suite.scripts.real import real
from bench.suite.scripts.train import train
from bench.wire import signs
from bench.wire.message import Message

RESNET18 = 11_173_962  # parameters
VOTERS = (1, 3, 7, 15, 31)


def packing(repeats: int = 30) -> None:
    """Packing signs to bits and unpacking them, for as many entries as ResNet18 has, against a copy of the vector."""
    x = torch.randn(1, RESNET18)
    out, (bits, _) = torch.empty_like(x), signs.pack(x)
    parts = (lambda: out.copy_(x), lambda: signs.pack(x), lambda: signs.unpack(bits, out))
    times = [[timed_ms(part) for part in parts] for _ in range(repeats)]
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

    times = [[timed_ms(partial(answer, message)) for message in messages.values()] for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    for m, milliseconds in zip(VOTERS, medians, strict=True):
        print(f"vote of {m:>2} on {RESNET18:,} entries: {milliseconds:>7.2f} ms, {milliseconds / m:>6.2f} a voter")


def drawing(repeats: int = 15) -> None:
    """Randomised compression of a gradient as long as ResNet18's, coding not included, against a copy of it."""
    x = torch.randn(1, RESNET18)
    out, noise = torch.empty_like(x), [Noise(0, 0, 0)]
    found = [GSpar(0.01), GSpar(0.1), UniSp(0.01), QSGD(4, "l2", 512), QSGD(4, "max", None), TernGrad()]
    parts = [lambda: out.copy_(x), *(partial(c.compress, x, (RESNET18,), noise) for c in found)]
    times = [[timed_ms(part) for part in parts] for _ in range(repeats + 1)][1:]  # the first compiles
    copy, *medians = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"drawing from {RESNET18:,} entries: copy {copy:.2f} ms")
    for i, (compressor, milliseconds) in enumerate(zip(found, medians, strict=True), start=1):
        ratio = statistics.median(row[i] / row[0] for row in times)
        print(f"{compressor!s:<45}{milliseconds:>8.2f} ms, ratio {ratio:>6.2f}")


class Products(nn.Module):
    """A loss whose gradients are the given tensors, and cost little more than writing them."""

    def __init__(self, gradients: list[torch.Tensor]) -> None:
        super().__init__()
        self.gradients = gradients
        self.parts = nn.ParameterList(torch.zeros_like(gradient) for gradient in gradients)

    def forward(self) -> torch.Tensor:
        return sum((part * g).sum() for part, g in zip(self.parts, self.gradients, strict=True))  # pyright: ignore[reportReturnType]


def lowrank(repeats: int = 10) -> None:
    """One worker's PowerSGD round on ResNet18's gradient, without computing it, against PyTorch's own DDP hook."""
    layout = Layout(resnet18().named_parameters())
    segments, noise, everyone = layout.segments("tensor"), Noise(0, 0, 0), np.ones(1, bool)
    gradient = torch.randn(1, layout.num_parameters)

    def measure(rank: int) -> list[float]:
        compressor = PowerSGD(rank)
        recipe = replace(bench.load_recipe("powersgd"), compressor=compressor, downlink=compressor)
        codes = Codes(recipe, segments, layout.vector)
        server, kept = Server(recipe, 1, codes), torch.zeros_like(gradient)

        def ours() -> None:
            x = recipe.feedback.compensate(gradient, kept)
            message = codes.uplink.compress(x, segments, [noise])
            recipe.feedback.settle(kept, message)
            answer = server.broadcast(server.receive(everyone, message, 1.0), Rate(1.0), noise)
            codes.follow(answer)
            answer.dense()

        alone = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group("gloo", store=alone, rank=0, world_size=1)
        plain, hooked = (
            DistributedDataParallel(Products([g.clone() for g in layout.views(gradient[0])]), bucket_cap_mb=100)
            for _ in range(2)
        )
        state = PowerSGDState(None, rank, start_powerSGD_iter=2, min_compression_rate=1)
        hooked.register_comm_hook(state, powerSGD_hook)
        work = ours, lambda: plain().backward(), lambda: hooked().backward()
        times = [[timed_ms(part) for part in work] for _ in range(repeats + 4)][4:]  # the first four warm up
        return [statistics.median(column) for column in zip(*times, strict=True)]

    for rank in (1, 2, 4):
        mine, bare, theirs = _apart(partial(measure, rank))
        told = f"PyTorch's hook takes {theirs - bare:.1f} more than DDP without it"
        print(f"low rank {rank} of {RESNET18:,} entries: {mine:.1f} ms; {told}", flush=True)


def _apart(work: Callable[[], list[float]]) -> list[float]:
    """Run `work` in a process that exits without clean-up: shutting gloo down after a DDP hook aborts at times."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        sender.send(work())
        os._exit(0)

    process = context.Process(target=run)
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    return found


class TimedHistory(History):
    """A history that records how long its hooks and the rounds take."""

    hooks_s: ClassVar[list[float]] = []
    rounds_s: ClassVar[dict[bool, list[float]]] = {True: [], False: []}  # by whether gauges were computed

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._timed(super().on_train_batch_start, trainer, pl_module, batch, batch_idx)
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        gauged = trainer.strategy.gauged  # pyright: ignore[reportAttributeAccessIssue]
        self.rounds_s[gauged].append(time.perf_counter() - self.started)
        self._timed(super().on_train_batch_end, trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self._timed(super().on_validation_end, trainer, pl_module)

    def _timed(self, hook: Callable[..., None], *args: Any) -> None:
        self.hooks_s.append(timed_ms(partial(hook, *args)) / 1e3)


def logging(epochs: int = 3) -> None:
    """Time per round that SASG on FC-MNIST spends on history and offline W&B, with an evaluation every 100 rounds."""
    import wandb

    history.History = TimedHistory
    hooks, rounds = TimedHistory.hooks_s, TimedHistory.rounds_s
    data = "mnist" if Path("data/mnist.npz").exists() else "digits"
    with tempfile.TemporaryDirectory() as folder, initialize_config_module("bench.suite.configs", version_base="1.3"):
        for logger, place in (("csv", []), ("wandb", [f"logger.save_dir={folder}"])):
            for seconds in (hooks, *rounds.values()):
                seconds.clear()
            options = [f"data={data}", f"logger={logger}", f"trainer.max_epochs={epochs}", f"results_dir={folder}"]
            train(compose("train", [*options, f"name={logger}", *place]), [])
            num_rounds = sum(map(len, rounds.values()))
            usual, gauged = (statistics.median(rounds[kind]) for kind in (False, True))
            per_round = 1e3 * sum(hooks) / num_rounds
            gauging = 1e3 * (gauged - usual) * len(rounds[True]) / num_rounds
            print(f"logger={logger}: history and logger {per_round:.3f} ms a round, gauges {gauging:.3f}, "
                  f"the round {1e3 * usual:.2f}")  # fmt: skip
        wandb.finish()


class TimedSaves(Autosave):
    """Saves after every round, and keeps bytes and seconds."""

    taken: ClassVar[list[tuple[int, float]]] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        self._save(trainer)
        self.taken.append((self.path.stat().st_size, time.perf_counter() - start))


def saving(rounds: int = 14) -> None:
    """Bytes and seconds of a run's checkpoint on ResNet18, ten workers, and its share of five minutes.
    Lazy rules keep more from round to round, up to the tenth."""
    images, labels = torch.randn(20 * rounds, 3, 32, 32), torch.randint(10, (20 * rounds,))
    for name in ("sgd", "sparse", "sasg"):
        TimedSaves.taken.clear()
        module = Classifier(resnet18(), partial(torch.optim.SGD, lr=0.01))
        with tempfile.TemporaryDirectory() as folder:
            saves = TimedSaves(Path(folder) / "last.ckpt", timedelta(minutes=5))
            strategy = bench.CompressedStrategy(name, engine="loop")
            trainer = Trainer(strategy=strategy, callbacks=[saves], accelerator="cpu", **{**BARE, "max_steps": rounds})
            trainer.fit(module, DataLoader(TensorDataset(images, labels), batch_size=20))
        size, seconds = TimedSaves.taken[-1][0], statistics.median(took for _, took in TimedSaves.taken[-4:])
        print(f"saving {name}: {size:,} bytes, {seconds:.2f} s, {seconds / 3:.2f} % of five minutes")


PARTS = {
    "packing": packing,
    "vote": vote,
    "drawing": drawing,
    "coding": coding,
    "lowrank": lowrank,
    "logging": logging,
    "saving": saving,
    "real": real,
}
