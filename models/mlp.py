"""The fully connected network of the SASG experiments: 784-512-10, 407,050 parameters."""

from torch import nn


def mlp(num_inputs: int = 784, num_hidden: int = 512, num_classes: int = 10) -> nn.Sequential:
    """(B, …) inputs, flattened -> (B, num_classes) logits, with one hidden ReLU layer."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(num_inputs, num_hidden),
        nn.ReLU(),
        nn.Linear(num_hidden, num_classes),
    )
