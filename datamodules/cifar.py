"""CIFAR-10 and CIFAR-100: photographs, 32 × 32, of 10 and of 100 classes (Krizhevsky 2009)."""

from collections.abc import Sequence
from typing import Any

from bench.errors import InputError
from bench.suite.datamodules.augmentation import Crop, Flip, Rotation
from bench.suite.datamodules.downloads import TorchvisionData


class CIFAR10(TorchvisionData):
    source = "CIFAR10"
    image_shape = (32, 32, 3)
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)  # over all pixels; the commonly used (0.2023, …) is a mean over images
    usual = (Crop(), Flip())


class CIFAR100(TorchvisionData):
    """
    Args:
        std: divisor of each channel; None takes the data's standard deviations. The published SASG code divides by the
            means.
    """

    source = "CIFAR100"
    image_shape = (32, 32, 3)
    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    usual = (Crop(), Flip(), Rotation())

    def __init__(self, std: Sequence[float] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if std is not None and (len(std) != 3 or min(std) <= 0):
            raise InputError(f"std: {list(std)}; three numbers above 0 are needed")
        self.std = std or self.std
