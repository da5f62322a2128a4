"""A model to be trained: built from its name, with real gradients of real inputs."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError
from torch import Tensor, nn

from bench.configured import get_object, instantiate
from bench.errors import InputError
from bench.gradients.layout import Layout

SHAPES = ((1, 28, 28), (3, 32, 32), (3, 224, 224))
"""Image shapes that are tried where none is given."""
LENGTHS = ((128,), (64,), (32,))
"""The same of texts."""
LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda output, labels: F.cross_entropy(output.flatten(0, -2), labels % output.shape[-1]),
    "mse": lambda output, labels: F.mse_loss(
        output, labels.view(-1, *[1] * (output.ndim - 1)).expand_as(output).float()
    ),
}


@dataclass
class Subject:
    """A model, and what it is fed.

    Args:
        model: (B, *shape) -> an output, a tensor or an object with `logits`.
        shape: of one input: (C, H, W) of images, (T,) of tokens, or any other of numbers.
        loss: (output, labels) -> a number.
        batch: inputs a worker.
        vocabulary: how many tokens there are; 0 where inputs are images.
        guessed: whether nobody gave the shape.
    """

    model: nn.Module
    shape: tuple[int, ...]
    loss: Callable[[Tensor, Tensor], Tensor]
    batch: int
    vocabulary: int = 0
    guessed: bool = False

    def __post_init__(self) -> None:
        self.layout = Layout(self.model.named_parameters())

    @property
    def told(self) -> str:
        """The input in words."""
        return f"inputs {'x'.join(map(str, self.shape))}{' (a guess)' * self.guessed}, batch {self.batch}"

    def gradient(self, number: int) -> Tensor:
        """(d,): the gradient of a batch, another one for each number."""
        return self._gradient(*self.inputs(number))

    def _gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        parts = torch.autograd.grad(self._loss(inputs, labels), self.layout.parameters, allow_unused=True)
        vector = torch.zeros_like(self.layout.vector)
        for view, part in zip(self.layout.views(vector), parts, strict=True):
            if part is not None:
                view.copy_(part)
        return vector

    def step_s(self, times: int = 3) -> float:
        """The median seconds of a gradient, after one that warms up. To make its inputs is not the model's work."""
        self.gradient(0)
        took = []
        for number in range(times):
            batch = self.inputs(number)
            started = time.perf_counter()
            self._gradient(*batch)
            took.append(time.perf_counter() - started)
        return sorted(took)[times // 2]

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        output = self.model(inputs)
        output = getattr(output, "logits", output)
        if self.vocabulary and output.ndim == 3:  # each token is predicted from those before it
            output, labels = output[:, :-1], inputs[:, 1:].flatten()
        return self.loss(output, labels)

    def inputs(self, number: int) -> tuple[Tensor, Tensor]:
        """Handwritten digits (scikit-learn's), enlarged to the inputs' shape; or their pixels, read as tokens."""
        images, labels = _digits()
        first = number * self.batch
        picked = torch.arange(first, first + self.batch) % len(images)
        chosen, their = images[picked], labels[picked]
        if self.vocabulary:
            size = self.shape[0]
            text = torch.arange(first, first + self.batch)[:, None] * size + torch.arange(size)
            pixels = images.flatten()
            return (pixels[text % len(pixels)] * 977).long() % self.vocabulary, their
        if len(self.shape) != 3:
            flat = F.interpolate(chosen.flatten(1)[:, None], size=math.prod(self.shape), mode="linear")
            return ((flat - 4.9) / 6.0).view(-1, *self.shape), their
        channels, *size = self.shape
        grown = F.interpolate(chosen[:, None], size=size, mode="bilinear")
        return ((grown - 4.9) / 6.0).expand(-1, channels, *size).contiguous(), their


@cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return torch.from_numpy(data.images).float(), torch.from_numpy(data.target).long()


def make_model(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a model: one of configs/model, or the result of any function or class by its import path.

    Raises:
        InputError: it cannot be imported, or built, or is no module.
    """
    file = files("bench.suite.configs") / "model" / f"{name}.yaml"
    try:
        if file.is_file():
            built = instantiate(OmegaConf.merge(OmegaConf.create(file.read_text()), arguments))
        else:
            built = get_object(name)(**arguments)
    except InterpolationKeyError as error:
        raise InputError(f"model.{error.full_key}: not given; {name} takes it from data, a value is needed") from error
    except Exception as error:  # whatever importing or building it raises
        raise InputError(f"model: {name!r}; it cannot be built: {' '.join(str(error).split())}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"model: {name!r}; a torch.nn.Module is needed, this gives {type(built).__name__}")
    return built


def make_subject(
    model: nn.Module, shape: tuple[int, ...] | None, loss: str, batch: int, vocabulary: int | None = None
) -> Subject:
    """A subject whose input is guessed where it is not given.

    Raises:
        InputError: the input or loss does not suit the model, or cannot be guessed.
    """
    if batch < 1:
        raise InputError(f"batch: {batch}; at least 1 is needed")
    own: Any = LOSSES.get(loss)  # a path's function is checked by calling it
    if own is None:
        try:
            own = get_object(loss)
        except Exception as error:
            raise InputError(f"loss: {loss!r}; {', '.join(LOSSES)} or a function's path is needed") from error
    words = next((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), 0)
    vocabulary = words if vocabulary is None else vocabulary
    reasons = []
    for tried in [shape] if shape else LENGTHS if vocabulary else SHAPES:
        subject = Subject(model, tried, own, batch, vocabulary, guessed=shape is None)
        try:
            if subject.gradient(0).count_nonzero():
                return subject
            reasons.append(f"{'x'.join(map(str, tried))}: no gradient")
        except Exception as error:  # whatever the model raises on an input that is not its own
            reasons.append(f"{'x'.join(map(str, tried))}: {' '.join(str(error).split())[:200]}")
    raise InputError(f"input, loss: {loss}; the model does not take {'; '.join(reasons)}; give input=3x64x64 and loss=")
