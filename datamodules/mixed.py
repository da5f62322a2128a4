"""CIFAR-10 and MNIST combined: two tasks that share a head of ten classes (heterogeneous setting, arXiv 2112.04088)."""

from typing import Any

import numpy as np

from bench.suite.datamodules.arrays import ImageArrays
from bench.suite.datamodules.augmentation import Crop
from bench.suite.datamodules.cifar import CIFAR10
from bench.suite.datamodules.images import ImageData
from bench.suite.datamodules.mnist import MNIST


class Mixed(ImageData):
    """CIFAR-10 and MNIST, which is padded in black to 32 × 32 with its channel repeated three times.

    Augmented by crops, but not by flips, which would change digits.

    Args:
        data_dir: folder of both npz files.
    """

    mean, std = CIFAR10.mean, CIFAR10.std
    usual = (Crop(),)

    def __init__(self, data_dir: str = "data", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parts = (CIFAR10(data_dir), MNIST(data_dir))

    def prepare_data(self) -> None:
        for part in self.parts:
            part.prepare_data()

    def load(self) -> ImageArrays:
        photographs, digits = (part.load() for part in self.parts)
        return ImageArrays(
            np.concatenate([photographs.x_train, _as_photographs(digits.x_train)]),
            np.concatenate([photographs.y_train, digits.y_train]),
            np.concatenate([photographs.x_test, _as_photographs(digits.x_test)]),
            np.concatenate([photographs.y_test, digits.y_test]),
            sources=np.repeat([0, 1], [len(photographs.x_train), len(digits.x_train)]),
            test_sources=np.repeat([0, 1], [len(photographs.x_test), len(digits.x_test)]),
        )


def _as_photographs(digits: np.ndarray) -> np.ndarray:
    """(N, 28, 28) -> (N, 32, 32, 3)."""
    return np.pad(digits, ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=-1)
