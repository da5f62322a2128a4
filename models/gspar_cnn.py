"""The convolutional network of the GSpar experiments on CIFAR-10: 407,202 parameters with 24 channels.

Wangni, Wang, Liu, Zhang: Gradient Sparsification for Communication-Efficient Distributed Optimization, NeurIPS 2018.
"""

from torch import nn


def gspar_cnn(num_channels: int = 24, num_classes: int = 10) -> nn.Sequential:
    """(B, 3, 32, 32) -> (B, num_classes) logits: three 3 × 3 convolutions with batch norm, two pools, two layers.

    Args:
        num_channels: c, of all three convolutions; the paper takes 24, 32, 48 and 64.
    """

    def convolution(num_inputs: int) -> list[nn.Module]:
        layer = nn.Conv2d(num_inputs, num_channels, kernel_size=3, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(num_channels), nn.ReLU()]

    return nn.Sequential(
        *convolution(3),
        nn.MaxPool2d(2),
        *convolution(num_channels),
        nn.MaxPool2d(2),
        *convolution(num_channels),
        nn.Flatten(),
        nn.Linear(num_channels * 8 * 8, 256),
        nn.ReLU(),
        nn.Linear(256, num_classes),
    )
