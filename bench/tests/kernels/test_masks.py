"""Sets of positions hold what numpy finds, whatever the length."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.kernels import masks
from bench.kernels.passes import nonzero

LENGTHS = st.integers(0, 3 * masks.WORD + 1)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
@settings(max_examples=30, deadline=None)
@given(length=LENGTHS, seed=st.integers(0, 2**32 - 1))
def test_nonzero(dtype: torch.dtype, length: int, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, length)).to(dtype)
    assert torch.equal(nonzero(x), x.nonzero()[:, 0])


@settings(max_examples=30, deadline=None)
@given(length=LENGTHS, low=st.integers(0, 9), high=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_above_and_between(length: int, low: int, high: int, seed: int) -> None:
    entries = np.random.default_rng(seed).integers(0, 10, length, np.int32)
    sets = masks.above_and_between(entries | np.int32(-(2**31)), np.int32(2**31 - 1), np.int32(low), np.int32(high))
    for found, expected in zip(sets, (entries > high, (entries >= low) & (entries <= high)), strict=True):
        places = np.empty(masks.size(found), np.int64)
        masks.positions(found, 5, places)
        assert places.tolist() == (np.flatnonzero(expected) + 5).tolist()
