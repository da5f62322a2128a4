"""Rows of messages that lie one after another in memory become one message without a copy."""

import pytest
import torch

from bench.compressors import TopK, TopKTernary
from bench.kernels.noise import Noise
from bench.wire.message import concatenate

SEGMENTS = (30, 70)
NOISE = [Noise(0, 0, rank) for rank in range(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compressor", [TopK(0.1), TopKTernary(0.1)])
def test_one_after_another_is_all_at_once(compressor: TopK, dtype: torch.dtype) -> None:
    x = torch.randn(4, 100, generator=torch.Generator().manual_seed(1)).to(dtype)
    room = torch.empty(1, 100, dtype=dtype)  # as workers share it
    each = [message for _, message in compressor.compress_each((room.copy_(row) for row in x), SEGMENTS, NOISE)]
    together, at_once = concatenate(each), compressor.compress(x, SEGMENTS, NOISE)
    for name, tensor in together.tensors.items():
        assert torch.equal(tensor, at_once.tensors[name])
    copied = together.tensors["indices"].data_ptr() != each[0].tensors["indices"].data_ptr()
    assert copied == (dtype is torch.float64 or isinstance(compressor, TopKTernary))


def test_others_are_copied() -> None:
    """Out of order, with one in between left out, or some from elsewhere."""
    x = torch.randn(4, 100, generator=torch.Generator().manual_seed(1))
    rows = [message for _, message in TopK(0.1).compress_each(x.split(1), SEGMENTS, NOISE)]
    other = TopK(0.1).compress(x[:1], SEGMENTS, NOISE[:1])
    for picked in ([1, 0, 2], [0, 2, 3], [0, 1, None, 3], [0, 0], [3, 0]):
        messages = [other if row is None else rows[row] for row in picked]
        expected = x[[0 if row is None else row for row in picked]]
        assert torch.equal(concatenate(messages).dense(), TopK(0.1).compress(expected, SEGMENTS, NOISE).dense())
