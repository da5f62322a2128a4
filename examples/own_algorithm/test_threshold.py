"""What the laws do not know about threshold-v."""

import pytest
import torch
from threshold.compressor import LayerwiseThreshold, Threshold

from bench.errors import InputError
from bench.gradients.layout import TensorSize
from bench.kernels.noise import Noise

NOISE = [Noise(0, 0, 0)]


def test_it_sends_what_reaches_the_threshold() -> None:
    x = torch.tensor([[0.5, -1.0, 0.99, 2.0]])
    assert Threshold(1.0).compress(x, (4,), NOISE).dense().tolist() == [[0, -1, 0, 2]]


def test_layers_have_thresholds_of_their_own() -> None:
    segments = (TensorSize(2, name="first.weight"), TensorSize(2, name="last.weight"))
    message = LayerwiseThreshold(1.0, "last", 0.1).compress(torch.full((1, 4), 0.5), segments, NOISE)
    assert message.dense().tolist() == [[0, 0, 0.5, 0.5]]


def test_no_threshold_is_refused() -> None:
    with pytest.raises(InputError, match="threshold: 0"):
        Threshold(0)
