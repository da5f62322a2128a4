"""Splits of training samples among workers: IID, IID but fixed, by labels, by Dirichlet draws, by source; and a
picture of them.

A split gives the samples of every worker, in the order of an epoch. It depends on (seed, epoch) only, so that all
processes agree on it without communication.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from bench.errors import InputError
from bench.runs.whole import write_whole


class Split(ABC):
    @abstractmethod
    def deal(self, labels: np.ndarray, num_workers: int, seed: int, epoch: int) -> list[np.ndarray]:
        """Labels (N,) -> for each of M workers the indices of its samples, in this epoch's order.

        Raises:
            InputError: the labels cannot be split among so many workers this way.
        """

    def served(self, labels: np.ndarray) -> list[tuple[np.ndarray, slice]]:
        """Labels (N,) of test samples -> groups of sample indices, each with the ranks whose averaged batch-norm
        statistics evaluate it. By default all samples with those of all workers.
        """
        return [(np.arange(len(labels)), slice(None))]


@dataclass(frozen=True)
class IID(Split):
    """A fresh random permutation of all samples every epoch, cut into M equal shards."""

    def deal(self, labels: np.ndarray, num_workers: int, seed: int, epoch: int) -> list[np.ndarray]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(labels), generator=generator).numpy()
        size = len(labels) // num_workers
        return list(order[: num_workers * size].reshape(num_workers, size))


class Holdings(Split):
    """Splits in which a worker keeps its samples for the whole run and reshuffles them every epoch."""

    def deal(self, labels: np.ndarray, num_workers: int, seed: int, epoch: int) -> list[np.ndarray]:
        held = self.hold(labels, num_workers, np.random.default_rng((seed, 0)))
        return [np.random.default_rng((seed, 1, epoch, rank)).permutation(own) for rank, own in enumerate(held)]

    @abstractmethod
    def hold(self, labels: np.ndarray, num_workers: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Labels (N,) -> for each of M workers the indices of its samples."""


@dataclass(frozen=True)
class Fixed(Holdings):
    """A random permutation of all samples, cut into M equal shards that workers keep for the whole run."""

    def hold(self, labels: np.ndarray, num_workers: int, rng: np.random.Generator) -> list[np.ndarray]:
        size = len(labels) // num_workers
        return list(rng.permutation(len(labels))[: num_workers * size].reshape(num_workers, size))


@dataclass(frozen=True)
class Labels(Holdings):
    """Each worker holds L labels; each label is held by nearly the same number of workers.

    Args:
        num_labels: L.
        shared: if True, each holder of a label has all its samples, as in the sparse-signSGD authors' code; if False,
            the holders of a label divide its samples, so that no two workers share a sample.
    """

    num_labels: int = 2
    shared: bool = False

    def hold(self, labels: np.ndarray, num_workers: int, rng: np.random.Generator) -> list[np.ndarray]:
        classes = np.unique(labels)
        if not 1 <= self.num_labels <= len(classes):
            raise InputError(f"num_labels: {self.num_labels}; 1 to {len(classes)} is allowed, the classes there are")
        holders: dict[int, list[int]] = {label: [] for label in classes.tolist()}
        for rank in range(num_workers):  # each takes the labels with the fewest holders so far, ties at random
            order = sorted(rng.permutation(classes).tolist(), key=lambda label: len(holders[label]))
            for label in order[: self.num_labels]:
                holders[label].append(rank)
        if unheld := [str(label) for label, ranks in holders.items() if not ranks]:
            raise InputError(
                f"num_labels: {self.num_labels}; {num_workers} workers hold {num_workers * self.num_labels} labels,"
                f" so that nobody holds {', '.join(unheld)}"
            )
        held: list[list[np.ndarray]] = [[] for _ in range(num_workers)]
        for label, ranks in holders.items():
            samples = rng.permutation(np.flatnonzero(labels == label))
            if len(samples) < len(ranks) and not self.shared:
                raise InputError(
                    f"num_labels: {self.num_labels}; {len(ranks)} workers hold label {label}, which has only"
                    f" {len(samples)} samples: fewer workers or shared: true is needed"
                )
            parts = [samples] * len(ranks) if self.shared else np.array_split(samples, len(ranks))
            for rank, part in zip(ranks, parts, strict=True):
                held[rank].append(part)
        return [np.concatenate(parts) for parts in held]


@dataclass(frozen=True)
class Dirichlet(Holdings):
    """Each label's samples are divided in proportions drawn from Dir(α) over the workers.

    Args:
        alpha: α. Large values make workers alike; small ones leave each label to few workers.
    """

    alpha: float = 0.5
    TRIES = 100

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise InputError(f"alpha: {self.alpha}; a finite number above 0 is needed")

    def hold(self, labels: np.ndarray, num_workers: int, rng: np.random.Generator) -> list[np.ndarray]:
        for _ in range(self.TRIES):  # until every worker has samples
            held: list[list[np.ndarray]] = [[] for _ in range(num_workers)]
            for label in np.unique(labels):
                samples = rng.permutation(np.flatnonzero(labels == label))
                proportions = rng.dirichlet(np.full(num_workers, self.alpha))
                ends = np.round(np.cumsum(proportions)[:-1] * len(samples)).astype(int)
                for own, part in zip(held, np.split(samples, ends), strict=True):
                    own.append(part)
            dealt = [np.concatenate(parts) for parts in held]
            if all(len(own) for own in dealt):
                return dealt
        raise InputError(
            f"alpha: {self.alpha}; leaves some of {num_workers} workers without samples, a larger one is needed"
        )


@dataclass(frozen=True)
class Sources(Split):
    """Even ranks hold the first of two data sets, odd ranks the second; each half divides its data set equally, with a
    new permutation every epoch.

    Test samples are evaluated with the batch-norm statistics of the workers that hold their data set (FedBN: Li, Jiang,
    Zhang, Kamp, Dou, ICLR 2021), since an average over both data sets fits neither.

    Args:
        num_classes: of each data set; the second one's labels start at this number.
    """

    num_classes: int = 10

    def served(self, labels: np.ndarray) -> list[tuple[np.ndarray, slice]]:
        return [(part, slice(source, None, 2)) for source, part in enumerate(self._parts(labels))]

    def _parts(self, labels: np.ndarray) -> list[np.ndarray]:
        return [np.flatnonzero(labels < self.num_classes), np.flatnonzero(labels >= self.num_classes)]

    def deal(self, labels: np.ndarray, num_workers: int, seed: int, epoch: int) -> list[np.ndarray]:
        parts = self._parts(labels)
        if num_workers < 2:
            raise InputError(f"workers: {num_workers}; split=sources needs at least 2, one for each data set")
        held: list[np.ndarray] = [np.empty(0, int)] * num_workers
        for source, part in enumerate(parts):
            order = np.random.default_rng((seed, 2, epoch, source)).permutation(part)
            held[source::2] = np.array_split(order, len(held[source::2]))
        return held


def picture(path: Path, shards: list[np.ndarray], labels: np.ndarray) -> None:
    """Draw the number of samples of each class that each worker holds, workers × classes, as a PNG file."""
    from matplotlib.figure import Figure  # imported here because only a run that begins needs it

    num_classes = int(labels.max()) + 1
    counts = np.stack([np.bincount(labels[own], minlength=num_classes) for own in shards])
    figure = Figure(figsize=(1.2 + 0.28 * num_classes, 0.9 + 0.17 * len(counts)), dpi=100, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(counts, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(num_classes) if num_classes <= 20 else range(0, num_classes, 10))
    axes.set_yticks(range(0, len(counts), 1 if len(counts) <= 10 else 5))
    axes.set(xlabel="class", ylabel="worker")
    figure.colorbar(image, label="samples")
    png = BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    write_whole(path, png.getvalue())
