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
    positions, integers = nonzero(x)
    assert torch.equal(positions, x.nonzero()[:, 0])
    assert torch.equal(integers, x[positions])


@settings(max_examples=30, deadline=None)
@given(length=LENGTHS, low=st.integers(0, 9), high=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_above_and_between(length: int, low: int, high: int, seed: int) -> None:
    low, high = sorted((low, high))
    entries = np.random.default_rng(seed).integers(0, 10, length, np.int32)
    signed, mask = entries | np.int32(-(2**31)), np.int32(2**31 - 1)
    num_above, between = masks.above_and_between(signed, mask, np.int32(low), np.int32(high))
    assert num_above == (entries > high).sum()
    places, values = np.empty(masks.size(between), np.int64), np.empty(masks.size(between), np.int32)
    masks.take(between, 5, signed, places, values)
    assert places.tolist() == (np.flatnonzero((entries >= low) & (entries <= high)) + 5).tolist()
    assert values.tolist() == signed[places - 5].tolist()


@settings(max_examples=30, deadline=None)
@given(word=st.integers(0, 2**64 - 1), count=st.integers(0, 70))
def test_first_bits(word: int, count: int) -> None:
    """They are the lowest ones that are set."""
    places = [place for place in range(masks.WORD) if word >> place & 1][:count]
    assert masks.first_bits(np.uint64(word), np.int64(count)) == sum(1 << place for place in places)
    assert masks.num_bits(np.uint64(word)) == word.bit_count()
