"""Image data sets for classification, held as tensors on the device and batched there."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.errors import InputError
from bench.runs.whole import going_on
from bench.suite.datamodules.arrays import ImageArrays
from bench.suite.datamodules.augmentation import Augmentation, augment
from bench.suite.datamodules.sharding import ShardedData
from bench.suite.datamodules.splits import Sources, picture


class ImageSet(Dataset):
    """Images stored as uint8 (N, C, H, W). Indexing by a tensor of shape S gives floats (S, C, H, W) and labels (S).

    Args:
        images: (N, H, W) or (N, H, W, C).
        labels: (N,).
        mean, std: of each channel, for values in [0, 1].
        device: where the data are stored.
        change: maps the images (S, C, H, W) that are read, still uint8, before they are normalised; None keeps them.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        channels_last = torch.from_numpy(images.reshape(*images.shape[:3], -1))
        self.images = channels_last.movedim(-1, 1).contiguous().to(device)
        self.labels = torch.from_numpy(labels).long().to(device)
        # (x/255 − mean) / std as one multiplication and one subtraction
        self.scale = 1 / (255 * torch.tensor(std, device=device).view(-1, 1, 1))
        self.shift = (torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1).to(device)
        self.change = change or (lambda images: images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        flat = indices.flatten().to(self.images.device)
        changed = self.change(self.images.index_select(0, flat).unflatten(0, indices.shape)).flatten(0, -4)
        images = (changed * self.scale).sub_(self.shift)
        if images.shape[1] > 1:  # convolutions are a fifth faster with channels last
            images = images.contiguous(memory_format=torch.channels_last)
        return images.unflatten(0, indices.shape), self.labels.index_select(0, flat).view(indices.shape)


class ImageData(ShardedData):
    """An image data set, divided among the workers of a compressed strategy.

    Args:
        num_held_out: number of training images, the last ones, to hold out and evaluate on instead of the test set, for
            example to choose learning rates.
        augmentations: applied to training images in this order; None takes the data set's usual ones.
        kwargs: for `ShardedData`. Its seed is also that of the augmentations.
    """

    mean: Sequence[float]
    std: Sequence[float]
    num_classes: int = 10
    usual: Sequence[Augmentation] = ()
    """The augmentations with which results on this data set are usually reported."""

    def __init__(
        self,
        num_held_out: int = 0,
        augmentations: Sequence[Augmentation] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_held_out = num_held_out
        self.augmentations = self.usual if augmentations is None else augmentations

    @abstractmethod
    def load(self) -> ImageArrays:
        """Load the arrays. Called in every process."""

    def setup(self, stage: str) -> None:
        arrays, device = self.load(), self.strategy.root_device
        if isinstance(self.split, Sources) and arrays.sources is None:
            raise InputError("split: sources; the data come from one source, data=mixed is needed")
        if self.num_held_out:
            arrays = arrays.hold_out(self.num_held_out)
        train = ImageSet(arrays.x_train, arrays.y_train, self.mean, self.std, device, self.augment)
        test = ImageSet(arrays.x_test, arrays.y_test, self.mean, self.std, device)
        self.deal(train, test, arrays.kinds, arrays.test_kinds)

    def augment(self, images: Tensor) -> Tensor:
        """Augment the images of a round, (L, B, C, H, W) uint8."""
        return augment(images, self.augmentations, self.sampler.noise())


class SplitPicture(lightning.Callback):
    """Draws the split among workers when a run begins.

    Args:
        path: of the PNG file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.is_global_zero and not self.path.exists():
            with going_on("split.png"):
                picture(self.path, data.sampler.deal(), data.sampler.labels)
