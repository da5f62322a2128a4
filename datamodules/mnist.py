"""MNIST: handwritten digits, 28 × 28, greyscale (LeCun, Bottou, Bengio, Haffner 1998)."""

from bench.suite.datamodules.downloads import TorchvisionData


class MNIST(TorchvisionData):
    source = "MNIST"
    image_shape = (28, 28)
    mean = (0.1307,)
    std = (0.3081,)
