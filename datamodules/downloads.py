"""Data sets of torchvision: read from `<data_dir>/<name>.npz`, which is downloaded if it is missing."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bench.errors import InputError
from bench.suite.datamodules.arrays import ImageArrays, load_npz, save_npz
from bench.suite.datamodules.images import ImageData


class TorchvisionData(ImageData):
    """
    Args:
        data_dir: folder of the npz file.

    Raises:
        InputError: the file is damaged, or is missing and cannot be downloaded.
    """

    source: ClassVar[str]
    """Name of the class in `torchvision.datasets`; in lower case, the name of the file."""

    image_shape: ClassVar[tuple[int, ...]]

    def __init__(self, data_dir: str = "data", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = Path(data_dir) / f"{self.source.lower()}.npz"

    def prepare_data(self) -> None:
        if not self.path.exists():
            from torchvision import datasets  # imported here because most runs do not need it

            fetch = getattr(datasets, self.source)
            with TemporaryDirectory() as root:  # one per process, since runs of a matrix may start together
                try:
                    train, test = (fetch(root, train=split, download=True) for split in (True, False))
                except (OSError, RuntimeError) as error:
                    raise InputError(f"{self.path}: missing, and the download failed: {error}") from error
                save_npz(self.path, train, test)

    def load(self) -> ImageArrays:
        return load_npz(self.path, self.image_shape, self.num_classes)
