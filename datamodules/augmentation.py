"""Random crops, flips and rotations of a whole batch at once, with independent draws per image.

Like torchvision's RandomCrop, RandomHorizontalFlip and RandomRotation (nearest pixel). Each is a gather of pixels, so
that a worker's images do not depend on who else is in the batch. Pixels from outside an image are black.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.errors import InputError
from bench.kernels.noise import Noise


class Augmentation(ABC):
    @abstractmethod
    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """(N, …) random numbers, one row per image, on the CPU."""

    @abstractmethod
    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """(N, C, H, W) images and their draws -> the augmented images, of the same shape."""


def augment(images: Tensor, augmentations: Sequence[Augmentation], noise: Sequence[Noise]) -> Tensor:
    """(L, B, C, H, W) images of L workers -> augmented images; worker m's draws come from `noise[m]` alone."""
    if not augmentations:
        return images
    num_workers, num_images = images.shape[:2]
    generators = [origin.generator("augmentation", torch.device("cpu")) for origin in noise]
    flat = images.flatten(0, 1)
    for augmentation in augmentations:
        drawn = torch.cat([augmentation.draw(num_images, generator) for generator in generators])
        flat = augmentation.apply(flat, drawn.to(flat.device))
    return flat.unflatten(0, (num_workers, num_images))


@dataclass(frozen=True)
class Crop(Augmentation):
    """Pads the image in black and crops a random window of its original size.

    Args:
        padding: on each side, in pixels.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding: {self.padding}; at least 0 pixels are needed")

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2 * self.padding + 1, (num_images, 2), generator=generator)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows = drawn[:, :1] + torch.arange(height, device=images.device)  # (N, H)
        columns = drawn[:, 1:] + torch.arange(width, device=images.device)  # (N, W)
        return _gather(pad(images, 4 * (self.padding,)), rows[:, :, None], columns[:, None, :])


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirrors an image left to right with probability ½."""

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (num_images,), generator=generator)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        return torch.where(drawn.bool()[:, None, None, None], images.flip(-1), images)


@dataclass(frozen=True)
class Rotation(Augmentation):
    """Rotates an image about its centre by a random angle between −degrees and degrees."""

    degrees: float = 15

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise InputError(f"degrees: {self.degrees}; 0 to 180 is allowed")

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        angles = torch.rand(num_images, generator=generator, dtype=torch.float64).mul_(2).sub_(1).mul_(self.degrees)
        return torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], dim=1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        cos, sin = drawn[:, 0, None, None], drawn[:, 1, None, None]
        # Source of each pixel: rotated back about the centre, which lies between two pixels if a side is even.
        y = (torch.arange(height, device=images.device, dtype=drawn.dtype) - (height - 1) / 2)[:, None]
        x = torch.arange(width, device=images.device, dtype=drawn.dtype) - (width - 1) / 2
        rows = (y * cos + x * sin + (height - 1) / 2).round().long()
        columns = (x * cos - y * sin + (width - 1) / 2).round().long()
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        turned = _gather(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
        return turned * inside[:, None]


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, C, H, W) images -> (N, C, H', W'): pixels at `rows` and `columns`, which broadcast to (N, H', W')."""
    picture = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, -1)[picture, rows, columns].movedim(-1, 1)
