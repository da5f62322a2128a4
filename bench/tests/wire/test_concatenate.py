"""Messages of one vector after another, joined, are those of all at once; what lies together is not copied."""

import pytest
import torch

from bench.compressors import Compressor, TopK
from bench.kernels.noise import Noise
from bench.tests.found import COMPRESSORS
from bench.wire.message import Message, concatenate

SEGMENTS = (32, 64)
NOISE = [Noise(0, 0, rank) for rank in range(4)]
X = torch.randn(4, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=list(COMPRESSORS))
def test_one_after_another_is_all_at_once(compressor: Compressor, dtype: torch.dtype) -> None:
    x, room = X.to(dtype), torch.empty(1, 96, dtype=dtype)  # workers share it, unless a message keeps it
    vectors = (row.clone() if compressor.keeps_input else room.copy_(row) for row in x.split(1))
    together = concatenate([message for _, message in compressor.compress_each(vectors, SEGMENTS, NOISE)])
    at_once = compressor.compress(x.clone(), SEGMENTS, NOISE)
    for row in range(len(x)):
        assert together.encode(row).tobytes() == at_once.encode(row).tobytes()


@pytest.mark.parametrize("compressor", [each for each in COMPRESSORS.values() if each.reuses], ids=repr)
def test_memory_is_used_again_where_it_fits(compressor: Compressor) -> None:
    def joined(vectors: torch.Tensor, used: Message | None = None) -> Message:
        noise = NOISE[: len(vectors)]
        return concatenate([each for _, each in compressor.compress_each(vectors.split(1), SEGMENTS, noise, used)])

    used = joined(X)
    for vectors, fits in ((-X.flip(1), True), (X[:3], False), (X.double(), False)):
        again = joined(vectors, used)
        assert (again.tensors["indices"].data_ptr() == used.tensors["indices"].data_ptr()) == fits
        expected = compressor.compress(vectors, SEGMENTS, NOISE[: len(vectors)])
        assert torch.equal(again.dense(), expected.dense())
    wide = joined(X.double())
    assert torch.equal(joined(X, wide).dense(), compressor.compress(X, SEGMENTS, NOISE).dense())


def test_the_default_dtype_is_no_messages() -> None:
    expected = TopK(0.1).compress(X, SEGMENTS, NOISE)
    torch.set_default_dtype(torch.float64)
    try:
        found = TopK(0.1).compress(X, SEGMENTS, NOISE)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.values.dtype is torch.float32
    assert torch.equal(found.dense(), expected.dense())


def test_what_lies_together_is_not_copied() -> None:
    """Rows out of order, with one in between left out, or some from elsewhere, are."""
    rows = [message for _, message in TopK(0.1).compress_each(X.split(1), SEGMENTS, NOISE)]
    assert concatenate(rows).tensors["indices"].data_ptr() == rows[0].tensors["indices"].data_ptr()
    other = TopK(0.1).compress(X[:1], SEGMENTS, NOISE[:1])
    for picked in ([1, 0, 2], [0, 2, 3], [0, 1, None, 3], [0, 0], [3, 0]):
        messages = [other if row is None else rows[row] for row in picked]
        expected = X[[0 if row is None else row for row in picked]]
        assert torch.equal(concatenate(messages).dense(), TopK(0.1).compress(expected, SEGMENTS, NOISE).dense())
