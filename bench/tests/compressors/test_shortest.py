"""The shortest form of an answer."""

import pytest
import torch

from bench.compressors import Shortest
from bench.compressors.shortest import Nonzero

DIM = 5_003


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("density", [0, 0.0001, 0.01, 0.3, 0.5, 0.9, 0.99, 1])
def test_bits_counted_without_positions_are_those_written(density: float, dtype: torch.dtype) -> None:
    """Alone and at the ends, whether most entries are there, few or none; an entry of −0 is one."""
    draws = torch.Generator().manual_seed(int(1000 * density))
    x = torch.randn(DIM, generator=draws).to(dtype) * (torch.rand(DIM, generator=draws) < density)
    for ends in ([], [0], [DIM - 1], [0, 63, 64, DIM - 1]):
        x[ends] = -0.0
        entries = Nonzero(x)
        assert entries.num_bits == int(entries.piece.num_bits)
        message = Shortest().compress(x[None], (DIM,), [])
        payload = message.encode(0)
        assert 0 <= 8 * len(payload) - int(message.num_bits) < 24, "each field is padded by less than a byte"
        decoded = message.decode([payload]).dense()[0]
        assert torch.equal(decoded, x)
        assert torch.equal(decoded.signbit(), x.signbit())
