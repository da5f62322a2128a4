"""Measures the codes of messages on a gradient of FC-MNIST."""

import statistics
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F

import bench
from bench.compressors import Compressor
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.suite.datamodules.digits import Digits
from bench.suite.datamodules.images import ImageSet
from bench.suite.datamodules.mnist import MNIST
from bench.suite.models.mlp import mlp
from bench.suite.scripts.bare import timed_ms
from bench.wire.integers import Code
from bench.wire.message import Message

ROUNDS = 200  # plain steps before the gradient: first gradients are unlike all others


def coding(repeats: int = 7) -> None:
    """Print for every compressor with several codes: bits an entry, over the bound, and the time of each pass."""
    gradient, segments = _gradient()
    print(f"{'compressor':<16}{'code':<8}{'bits an entry':>14}{'over bound':>12}", end="")
    print(f"{'count':>9}{'encode':>9}{'decode':>9} ms")
    for kind, compressor in sorted(_coded().items()):
        for code in (None, *get_args(Code)):
            chosen = replace(compressor, code=code)  # pyright: ignore[reportArgumentType, reportCallIssue]
            message = chosen.compress(gradient, segments, [Noise(0, 0, 0)])
            passes = _passes(message, chosen.blank(1, segments, gradient[0]))
            times = [statistics.median(timed_ms(work) for _ in range(repeats)) for work in passes]
            bits, over = int(message.num_bits) / gradient.shape[1], float(message.num_bits / message.bound)
            print(
                f"{kind:<16}{code or 'own':<8}{bits:>14.3f}{over:>12.3f}", *(f"{ms:>8.2f}" for ms in times), flush=True
            )


def _passes(message: Message, schema: Message) -> list[Callable[[], object]]:
    """Counting, encoding and decoding, each anew: messages remember what they have counted."""
    payload = message.encode(0)
    return [
        lambda: message.with_tensors({}).num_bits,
        lambda: message.with_tensors({}).encode(0),
        lambda: schema.decode([payload]),
    ]


def _coded() -> dict[str, Compressor]:
    recipes = map(bench.load_recipe, bench.recipe_names())
    used = {type(part).__name__: part for recipe in recipes for part in (recipe.broadcast, recipe.compressor)}
    return {name: part for name, part in used.items() if "code" in {field.name for field in fields(part)}}  # pyright: ignore[reportArgumentType]


def _gradient() -> tuple[torch.Tensor, tuple[int, ...]]:
    """One worker's gradient (1, d) on ten images after some training, and the sizes of the tensors."""
    torch.manual_seed(1)
    data = MNIST() if Path("data/mnist.npz").exists() else Digits()
    arrays = data.load()
    train = ImageSet(arrays.x_train, arrays.y_train, data.mean, data.std, torch.device("cpu"))
    images, labels = train[torch.arange(100 * ROUNDS) % len(train)]
    network = mlp()
    layout, optimizer = Layout(network.named_parameters()), torch.optim.SGD(network.parameters(), lr=0.05)
    for batch, targets in zip(images.split(100), labels.split(100), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(network(batch), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    F.cross_entropy(network(images[:10]), labels[:10]).backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    return gradient[None], layout.segments("tensor")
