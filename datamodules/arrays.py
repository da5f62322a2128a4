"""Image data sets as npz files: x_train, y_train, x_test, y_test, checked when loaded."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.errors import InputError

NAMES = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class ImageArrays:
    """Images uint8 (N, H, W) or (N, H, W, C), labels uint8 (N,).

    `sources`, `test_sources`: (N,) the data set that each image is from, if several are combined; else None.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    sources: np.ndarray | None = None
    test_sources: np.ndarray | None = None

    @property
    def kinds(self) -> np.ndarray:
        """(N,) the classes that a split sees: labels, offset per source so that sources share none."""
        return self._kinds(self.y_train, self.sources)

    @property
    def test_kinds(self) -> np.ndarray:
        """(N,) the same for test images."""
        return self._kinds(self.y_test, self.test_sources)

    def _kinds(self, labels: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
        return labels if sources is None else sources * (int(self.y_train.max()) + 1) + labels

    def hold_out(self, num_samples: int) -> Self:
        """Use the last `num_samples` training samples as the test set.

        Raises:
            InputError: `num_samples` leaves nothing to train on, or the data are mixed, whose last samples are all from
                one source.
        """
        if self.sources is not None:
            raise InputError(f"num_held_out: {num_samples}; they would be from one source, 0 is needed for mixed data")
        kept = len(self.x_train) - num_samples
        if not 0 < num_samples < len(self.x_train):
            raise InputError(
                f"num_held_out: {num_samples}; 1 to {len(self.x_train) - 1} is allowed, fewer than the training images"
            )
        return type(self)(self.x_train[:kept], self.y_train[:kept], self.x_train[kept:], self.y_train[kept:])


def load_npz(path: Path, image_shape: tuple[int, ...], num_classes: int) -> ImageArrays:
    """Read and check a data set.

    Raises:
        InputError: an array is missing, unreadable, or not of the expected kind; the message says which.
    """
    arrays = {}
    for name in NAMES:
        try:
            with path.open("rb") as file, np.load(file) as archive:
                array = archive[name]
        except Exception as error:  # a damaged archive can raise any kind of error
            raise InputError(
                f"{path}: {name}: cannot be read ({error!r}); remove the file to fetch it again"
            ) from error
        if array.dtype != np.uint8:
            raise InputError(f"{path}: {name}: expected uint8, found {array.dtype}")
        arrays[name] = array
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if images.shape[1:] != image_shape or not len(images):
            raise InputError(f"{path}: x_{split}: expected images of shape {image_shape}, found {images.shape}")
        if labels.shape != images.shape[:1]:
            raise InputError(f"{path}: y_{split}: expected {len(images)} labels, found shape {labels.shape}")
        if labels.max() >= num_classes:
            raise InputError(f"{path}: y_{split}: expected labels below {num_classes}, found {labels.max()}")
    return ImageArrays(**arrays)


def save_npz(path: Path, train: Any, test: Any) -> None:
    """Write torchvision data sets (with `.data` and `.targets`) as npz; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            x_train=np.asarray(train.data, np.uint8),
            y_train=np.asarray(train.targets, np.uint8),
            x_test=np.asarray(test.data, np.uint8),
            y_test=np.asarray(test.targets, np.uint8),
        )
    partial.replace(path)
