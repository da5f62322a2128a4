"""The small convolutional network of the sparse-signSGD experiments on MNIST: 582,026 parameters."""

from torch import nn


def cnn(num_channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """(B, C, 28, 28) -> (B, num_classes) logits: two 5 × 5 convolutions, each pooled, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(num_channels, 32, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, num_classes),
    )
