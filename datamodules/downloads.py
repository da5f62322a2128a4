"""Data sets that torchvision knows: `<data_dir>/<name>.npz`, or a download turned into it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bench.errors import InputError
from datamodules.arrays import ImageArrays, load_npz, save_npz
from datamodules.images import ImageData


class TorchvisionData(ImageData):
    """
    Args:
        data_dir: where the npz file is, or will be.

    Raises:
        InputError: an array is damaged, or there is none and no download.
    """

    source: ClassVar[str]
    """The data set's class in `torchvision.datasets`; in lower case, the file's name."""

    image_shape: ClassVar[tuple[int, ...]]

    def __init__(self, data_dir: str = "data", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = Path(data_dir) / f"{self.source.lower()}.npz"

    def prepare_data(self) -> None:
        if not self.path.exists():
            from torchvision import datasets  # here: most runs need no torchvision

            fetch = getattr(datasets, self.source)
            with TemporaryDirectory() as root:  # one's own: runs of a matrix may start together
                try:
                    train, test = (fetch(root, train=split, download=True) for split in (True, False))
                except (OSError, RuntimeError) as error:
                    raise InputError(f"{self.path}: not there, and its download failed: {error}") from error
                save_npz(self.path, train, test)

    def load(self) -> ImageArrays:
        return load_npz(self.path, self.image_shape, self.num_classes)
