"""Norms of long vectors in half precision, in which neither their sums nor their sizes need be finite."""

import pytest
import torch

from bench.compressors import Half, ScaledSign
from bench.rules.lazy import squared_norm


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("entry", [1e-4, 3.0])
def test_scales_of_long_vectors(entry: float, dtype: torch.dtype) -> None:
    x = torch.full((1, 100_000), entry, dtype=dtype)
    torch.testing.assert_close(ScaledSign().compress(x, (100_000,), []).dense(), x)
    torch.testing.assert_close(squared_norm(x), x.double().square().sum(dim=1).float())


def test_halves_of_another_range() -> None:
    x = torch.tensor([[1.0, -65504.0]], dtype=torch.float16)
    assert torch.equal(Half("bf16").compress(x, (2,), []).dense()[:, :1], x[:, :1])
