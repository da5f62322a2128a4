"""MNIST: `<data_dir>/mnist.npz`, or torchvision's download turned into it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.errors import InputError
from datamodules.arrays import ImageArrays, load_npz, save_npz
from datamodules.images import ImageData


class MNIST(ImageData):
    """
    Args:
        data_dir: where mnist.npz is, or will be.

    Raises:
        InputError: an array is damaged, or there is none and no download.
    """

    mean = (0.1307,)
    std = (0.3081,)

    def __init__(self, data_dir: str = "data", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = Path(data_dir) / "mnist.npz"

    def prepare_data(self) -> None:
        if not self.path.exists():
            from torchvision import datasets  # here: most runs need no torchvision

            with TemporaryDirectory() as root:  # one's own: runs of a matrix may start together
                try:
                    train, test = (datasets.MNIST(root, train=split, download=True) for split in (True, False))
                except (OSError, RuntimeError) as error:
                    raise InputError(f"{self.path}: not there, and its download failed: {error}") from error
                save_npz(self.path, train, test)

    def load(self) -> ImageArrays:
        return load_npz(self.path, image_shape=(28, 28), num_classes=10)
