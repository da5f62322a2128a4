"""Modules as users write them, not made for the suite. Every subclass of `Exhibit` is tested."""

import collections
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from bench.tests.found import subclasses


class Exhibit(lightning.LightningModule):
    """Classifies 3 × 8 × 8 images into four classes, unless a subclass does something else.

    Attributes:
        rounds: in an epoch, enough to show what is special about the module.
        draws: whether steps draw random numbers, which plain Lightning draws from other generators.
    """

    rounds = 6
    draws = False
    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.make()

    def make(self) -> None:
        self.net: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4))

    def samples(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(number, 3, 8, 8, generator=generator), torch.randint(4, (number,), generator=generator)

    def batch(self, x: Tensor, y: Tensor) -> Any:
        """Return a batch in the form in which the module's loader yields it."""
        return x, y

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)

    def loader(self, num_workers: int, ranks: Sequence[int]) -> DataLoader:
        """Return a loader that yields, for each round, the joint batch of these of `num_workers` ranks."""
        generator = torch.Generator().manual_seed(11)
        size, batches = self.batch_size, []
        for _ in range(self.rounds):
            x, y = self.samples(num_workers * size, generator)
            picked = torch.cat([torch.arange(rank * size, (rank + 1) * size) for rank in ranks])
            batches.append(self.batch(x[picked].clone(), y[picked].clone()))
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # pyright: ignore[reportArgumentType]


class Shuffled(Exhibit):
    """ShuffleNet: depthwise convolutions, batch norm, channel shuffles."""

    rounds = 3

    def make(self) -> None:
        self.net = torchvision.models.shufflenet_v2_x0_5(num_classes=4)


class Mobile(Exhibit):
    """MobileNet: squeeze and excitation, hard swish, dropout."""

    rounds = 2
    draws = True

    def make(self) -> None:
        self.net = torchvision.models.mobilenet_v3_small(num_classes=4)


class Recurrent(Exhibit):
    """An LSTM language model whose embedding and head share one weight."""

    def make(self) -> None:
        self.embedding, self.lstm, self.head = nn.Embedding(11, 6), nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 11)
        self.head.weight = self.embedding.weight

    def samples(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(11, (number, 7), generator=generator)
        return tokens[:, :-1], tokens[:, 1:]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        hidden, _ = self.lstm(self.embedding(x))
        return F.cross_entropy(self.head(hidden).flatten(0, 1), y.flatten())


class Attentive(Exhibit):
    """A transformer encoder layer."""

    def make(self) -> None:
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.cross_entropy(self.head(self.layer(x.flatten(1, 2)).mean(dim=1)), y)


class Grouped(Exhibit):
    """Group norm, channels last."""

    def make(self) -> None:
        layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(288, 4)]
        self.net = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Parametrized(Exhibit):
    """Weight norm, and spectral norm, which keeps the vectors of its power iteration in buffers."""

    def make(self) -> None:
        first = nn.utils.parametrizations.weight_norm(nn.Linear(192, 8))
        second = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4))
        self.net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)


class Averaging(Exhibit):
    """Batch norm with a cumulative average (momentum=None), used twice in a forward pass."""

    def make(self) -> None:
        norm = nn.BatchNorm1d(8, momentum=None)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), norm, nn.ReLU(), norm, nn.Linear(8, 4))


class Dropping(Exhibit):
    """Dropout, and mixup whose coefficient NumPy draws."""

    draws = True

    def make(self) -> None:
        super().make()
        self.dropout = nn.Dropout(0.3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        share = float(np.random.beta(0.4, 0.4))  # noqa: NPY002  as users do
        mixed = self.net(self.dropout(share * x + (1 - share) * x.flip(0)))
        return share * F.cross_entropy(mixed, y) + (1 - share) * F.cross_entropy(mixed, y.flip(0))


class Embedded(Exhibit):
    """An embedding with sparse gradients and one with dense gradients."""

    def make(self) -> None:
        self.sparse, self.bag, self.head = nn.Embedding(20, 4, sparse=True), nn.EmbeddingBag(20, 4), nn.Linear(8, 4)

    def samples(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randint(20, (number, 5), generator=generator), torch.randint(4, (number,), generator=generator)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.cross_entropy(self.head(torch.cat([self.sparse(x).mean(dim=1), self.bag(x)], dim=1)), y)


class Taught(Exhibit):
    """A teacher that is a moving average of the student, is written through `.data` and has its own batch norm."""

    rounds = 14

    def make(self) -> None:
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)
        self.moves = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        self.moves += 1
        decay = min(0.9, self.moves / (self.moves + 1))
        for old, new in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
            old.data.mul_(decay).add_(new.data, alpha=1 - decay)
        logits = self.net(x)
        return F.cross_entropy(logits, y) + F.mse_loss(logits, self.teacher(x).detach())


class Assigning(Exhibit):
    """Buffers that are assigned, one created late, one never written, one sparse; parameters with two names each."""

    def make(self) -> None:
        super().make()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("late", None)
        self.register_buffer("constant", torch.ones(3))
        self.register_buffer("graph", torch.eye(4).to_sparse())
        self.again = self.net

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        logits = torch.sparse.mm(self.get_buffer("graph"), self.net(x).T).T
        self.seen = self.seen + len(x)
        self.mean = 0.9 * self.mean + 0.1 * logits.detach().mean(dim=0)
        self.late = logits.detach().std(dim=0) if self.late is None else self.late + self.mean
        return F.cross_entropy(logits - 0.1 * self.mean, y)


class Batch(collections.UserDict):
    """A Mapping that is not a dict, as tokenizers return."""


class Worded(Exhibit):
    """Batches that are Mappings but not dicts, with strings and a number, and a step that pops an item."""

    def batch(self, x: Tensor, y: Tensor) -> Any:
        return Batch(x=x, y=y, names=[f"class {label}" for label in y.tolist()], scale=0.5, split="train")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert isinstance(batch, Batch)
        x, y, names = batch.pop("x"), batch["y"], batch["names"]
        assert names == [f"class {label}" for label in y.tolist()]
        assert batch["split"] == "train"
        return F.cross_entropy(self.net(x.mul_(batch["scale"])), y)


@dataclass
class Sample:
    x: Tensor
    y: Tensor
    weights: np.ndarray
    extras: tuple[str, ...]


class Classed(Exhibit):
    """Batches that are dataclasses with an array and a tuple of strings; a step that logs and returns extras."""

    def batch(self, x: Tensor, y: Tensor) -> Any:
        return Sample(x, y, 1 + y.numpy().astype(np.float32), tuple(str(label) for label in y.tolist()))

    def training_step(self, batch: Sample, batch_idx: int) -> Any:
        assert [int(text) for text in batch.extras] == batch.y.tolist()
        logits = self.net(batch.x)
        loss = (F.cross_entropy(logits, batch.y, reduction="none") * torch.from_numpy(batch.weights)).mean()
        for reduce_fx in ("mean", "min", "max", "sum"):
            self.log(name=reduce_fx, value=loss, reduce_fx=reduce_fx)
        self.log_dict(dictionary={"one": 1.0})
        return {"loss": loss, "logits": logits, "names": batch.extras}


class Frugal(Exhibit):
    """Activations recomputed in the backward pass, by reentrant checkpointing."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.cross_entropy(checkpoint(self.net, x.requires_grad_(), use_reentrant=True), y)


class Hooked(Exhibit):
    """Autograd hooks on a parameter, and a backward hook on a module."""

    def make(self) -> None:
        super().make()
        self.calls = [0, 0]
        first, *_ = self.net.parameters()
        first.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
        first.register_post_accumulate_grad_hook(lambda p: self.count(0))
        self.net.get_submodule("2").register_full_backward_hook(lambda *args: self.count(1))

    def count(self, which: int) -> None:
        self.calls[which] += 1


class Lacking(Exhibit):
    """A parameter without entries, one that the loss does not depend on, and a 0-dim one."""

    def make(self) -> None:
        super().make()
        self.empty, self.unused = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.ones(5))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.scale * super().training_step(batch, batch_idx)


class Halting(Exhibit):
    """From the fourth round on, what the joint engine cannot do: read the loss as a number, keep it, branch on it."""

    rounds = 8

    def make(self) -> None:
        super().make()
        self.kept: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if batch_idx >= 3:
            self.kept.append(loss.item())
            if loss > 1:
                loss = loss * 1.5
        return loss


ZOO: dict[str, type[Exhibit]] = {cls.__name__: cls for cls in subclasses(Exhibit)}


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a module with their names."""
    yield from module.named_parameters()
    yield from module.named_buffers()
