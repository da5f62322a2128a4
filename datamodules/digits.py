"""Handwritten digits that come with scikit-learn: real data without a download.

Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI 1998. 1,797 images of 8 × 8, enlarged threefold and
padded by 2 to 28 × 28. The last 297 are the test set.
"""

import numpy as np
from sklearn.datasets import load_digits

from bench.suite.datamodules.arrays import ImageArrays
from bench.suite.datamodules.images import ImageData

NUM_TRAIN = 1500


class Digits(ImageData):
    mean = (0.2242,)
    std = (0.3484,)

    def load(self) -> ImageArrays:
        images, labels = load_digits(return_X_y=True)
        small = np.asarray(images).reshape(-1, 8, 8) * (255 / 16)
        large = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
        x, y = large.round().astype(np.uint8), np.asarray(labels).astype(np.uint8)
        return ImageArrays(x[:NUM_TRAIN], y[:NUM_TRAIN], x[NUM_TRAIN:], y[NUM_TRAIN:])
