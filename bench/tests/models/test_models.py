"""Networks have the parameter counts of their papers, and keep their memory format in the flat vector."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bench.gradients.layout import Layout
from bench.suite.models.cnn import cnn
from bench.suite.models.gspar_cnn import gspar_cnn
from bench.suite.models.mlp import mlp
from bench.suite.models.resnet import resnet18, resnet20


@pytest.mark.parametrize(
    ("network", "image", "num_classes", "num_parameters"),
    [
        (mlp, (1, 28, 28), 10, 407_050),
        (cnn, (1, 28, 28), 10, 582_026),
        (resnet18, (3, 32, 32), 10, 11_173_962),
        (resnet18, (3, 32, 32), 100, 11_220_132),
        (resnet20, (3, 32, 32), 10, 269_722),
        (gspar_cnn, (3, 32, 32), 10, 407_202),
    ],
)
def test_sizes(
    network: Callable[..., nn.Module], image: tuple[int, ...], num_classes: int, num_parameters: int
) -> None:
    built = network(num_classes=num_classes)
    assert sum(p.numel() for p in built.parameters()) == num_parameters
    assert built(torch.zeros(2, *image)).shape == (2, num_classes)


def test_a_shortcut_adds_channels_of_zeros() -> None:
    x = torch.randn(2, 16, 8, 8)
    shortcut: Any = resnet20()[6].downsample  # pyright: ignore[reportIndexIssue]
    y = shortcut(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y.shape == (2, 32, 4, 4)
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_parameters_keep_their_memory_format() -> None:
    network, twin = resnet20(), resnet20()
    twin.load_state_dict(network.state_dict())
    layout = Layout(network.named_parameters())
    weight = network.get_parameter("0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert weight.data_ptr() == layout.vector.data_ptr()
    for ours, before in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, before)
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(network(x), twin(x))
