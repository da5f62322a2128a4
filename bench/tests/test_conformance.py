"""Properties that every compressor must have; the compressors are found by scanning the package."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.compressors import Compressor
from bench.compressors.grid import GridMessage
from bench.compressors.natural import NaturalMessage
from bench.compressors.powersgd import LowRankMessage
from bench.compressors.topk_ternary import SparseTernaryMessage
from bench.errors import InputError
from bench.gradients.layout import MatrixSize
from bench.kernels.noise import Noise
from bench.tests.found import CODED, COMPRESSORS, RECIPES, subclasses
from bench.wire.message import concatenate

SEGMENTS = [(1,), (7,), (300, 5, 40, 1), (MatrixSize(300, 15), 5, MatrixSize(40, 8), 1), (20_000, 10), (60_000,)]


def inputs(segments: tuple[int, ...]) -> dict[str, Tensor]:
    """Return three rows of each kind of vector that a gradient can be, (3, d)."""
    dim, generator = sum(segments), torch.Generator().manual_seed(1)
    normal = torch.randn(3, dim, generator=generator)
    one_hot = torch.zeros(3, dim)
    one_hot[torch.arange(3), torch.tensor([0, dim // 2, dim - 1])] = -2.5
    return {
        "normal": normal,
        "zeros": torch.zeros(3, dim),
        "ties": normal.round(),
        "constant": torch.full((3, dim), -1.25),
        "one-hot": one_hot,
        "heavy tails": normal**9,
        "mostly zero": normal * (torch.rand(3, dim, generator=generator) < 0.002),
        "ascending": torch.arange(3 * dim).view(3, dim) / dim,
        "tiny": normal * 1e-40,
    }


NOISE = [Noise(0, 5, rank) for rank in range(3)]


def cases(compressors: dict[str, Compressor], segments: Sequence[tuple[int, ...]] = SEGMENTS) -> list[Any]:
    """Return every compressor with every kind of vector in every partition; long vectors of four kinds only."""
    of_long = ("normal", "one-hot", "heavy tails", "mostly zero")
    return [
        pytest.param(compressor, parts, x, id=f"{name}-{parts}-{kind}")
        for name, compressor in compressors.items()
        for parts in segments
        for kind, x in inputs(parts).items()
        if sum(parts) < 1000 or kind in of_long
    ]


CASES = cases(COMPRESSORS)
WIRED = [*CASES, *cases(CODED, SEGMENTS[2:3])]


def test_every_compressor_is_in_a_recipe() -> None:
    assert {type(c) for c in COMPRESSORS.values()} == set(subclasses(Compressor))


@pytest.mark.parametrize(("compressor", "segments", "x"), WIRED)
def test_encoding(compressor: Compressor, segments: tuple[int, ...], x: Tensor) -> None:
    """The bytes carry the whole message, `num_bits` is their size without padding, and a blank message decodes them."""
    message = compressor.compress(x, segments, NOISE)
    payloads = [message.encode(row) for row in range(3)]
    padding = torch.tensor([8 * len(p) for p in payloads]) - message.num_bits
    assert ((padding >= 0) & (padding < 8 * len(message.tensors))).all()
    decoded = compressor.blank(1, segments, x).decode(payloads)
    assert all(torch.equal(decoded.tensors[name], t) for name, t in message.tensors.items())
    assert torch.equal(decoded.dense(), message.dense())


@pytest.mark.parametrize(("compressor", "segments", "x"), WIRED)
def test_slices(compressor: Compressor, segments: tuple[int, ...], x: Tensor) -> None:
    """Each piece represents a slice of the vector and is encoded on its own; joined, the pieces are the message."""
    message, schema = compressor.compress(x, segments, NOISE), compressor.blank(1, segments, x)
    if not message.cuttable:
        assert isinstance(message, LowRankMessage | SparseTernaryMessage)
        return
    dim = sum(segments)
    for bounds in ([0, dim], [0, dim // 24 * 8, dim // 16 * 8, dim], [0, dim, dim]):
        pieces, schemas = message.cut(bounds), schema.cut(bounds)
        there = [piece for piece, (start, end) in zip(pieces, pairwise(bounds), strict=True) if end > start]
        assert torch.equal(torch.cat([piece.dense() for piece in there], dim=1), message.dense())
        assert torch.equal(torch.cat([piece.sum() for piece in there]), message.sum())
        joined = message.joined(pieces).tensors
        assert all(torch.equal(joined[name], t) for name, t in message.tensors.items())
        for piece, like, (start, end) in zip(pieces, schemas, pairwise(bounds), strict=True):
            if start == end:
                continue
            payloads = [piece.encode(row) for row in range(3)]
            padding = torch.tensor([8 * len(p) for p in payloads]) - piece.num_bits
            assert ((padding >= 0) & (padding < 8 * (1 + len(piece.tensors)))).all()
            decoded = like.decode(payloads)
            assert torch.equal(decoded.dense(), piece.dense())
            assert torch.equal(decoded.sum(), piece.sum())


@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS.keys())
def test_no_code_beats_its_bound(compressor: Compressor) -> None:
    """For long vectors of independent entries. Only codes of equally many bits for every entry are far above."""
    x = torch.randn(3, 60_000, generator=torch.Generator().manual_seed(3))
    message = compressor.compress(x, (50_000, 10_000), NOISE)
    uneven = compressor.compress(x.clone().index_fill_(1, torch.arange(45_000, 59_000), 0), (50_000, 10_000), NOISE)
    assert (uneven.num_bits / uneven.bound >= 0.97).all()  # a code may exploit that the zeros are adjacent
    over, furthest = message.num_bits / message.bound, 3 if isinstance(message, NaturalMessage | GridMessage) else 1.5
    assert message.bound.dtype == torch.float64
    assert ((over >= 1) & (over < furthest)).all()


LONG = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("x", [LONG, LONG**3, LONG.clone().index_fill_(1, torch.arange(150_000, 199_000), 0)])
@pytest.mark.parametrize("name", [name for name in CODED if name.startswith("coded")])
def test_coded_messages_are_near_their_bound(name: str, x: Tensor) -> None:
    """And no other code of theirs is shorter; what the paper counts does not depend on it."""
    coded, segments = CODED[name], (150_000, 50_000)
    message = coded.compress(x, segments, NOISE)
    assert (message.num_bits <= 1.05 * message.bound).all()
    for code in ("packed", "plain", None):
        other = replace(coded, code=code)  # pyright: ignore[reportCallIssue, reportArgumentType]
        longer = other.compress(x, segments, NOISE)
        assert (message.num_bits <= longer.num_bits * (1 if code else 1.03)).all()
        assert torch.equal(message.bound, longer.bound)
        assert torch.equal(other.num_bits_paper(longer), coded.num_bits_paper(message))


@pytest.mark.parametrize("compressor", CODED.values(), ids=CODED.keys())
def test_no_such_code(compressor: Compressor) -> None:
    with pytest.raises(InputError, match=r"code: 'zip'; one of plain, packed, coded is needed, or null"):
        replace(compressor, code="zip")  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize(("compressor", "segments", "x"), CASES)
def test_compression(compressor: Compressor, segments: tuple[int, ...], x: Tensor) -> None:
    """Message + error = input; the error is as small as declared; rows are independent; the input is unchanged."""
    before = x.clone()
    message = compressor.compress(x, segments, NOISE)
    assert torch.equal(x, before)
    error = message.subtract_from(x.clone())
    rounding = 1e-6 * float(message.dense().abs().max())  # of (x − sent) + sent
    torch.testing.assert_close(message.dense() + error, x, rtol=1e-6, atol=rounding)
    if (contraction := compressor.contraction(segments)) is not None:
        bound = (1 - contraction) * x.double().square().sum(dim=1)
        assert (error.double().square().sum(dim=1) <= bound * (1 + 1e-6)).all()
    alone = concatenate(
        [compressor.compress(row[None], segments, [noise]) for row, noise in zip(x, NOISE, strict=True)]
    )
    assert torch.equal(alone.dense(), message.dense())
    assert torch.equal(alone.num_bits, message.num_bits)


@pytest.mark.parametrize(("compressor", "segments", "x"), CASES)
def test_sums(compressor: Compressor, segments: tuple[int, ...], x: Tensor) -> None:
    """The sum adds the rows in rank order, each times its weight if weights are given."""
    message = compressor.compress(x, segments, NOISE)
    a, b, c = message.dense()
    rounding = 1e-6 * float(x.abs().max()) + 1e-44  # floats below the smallest normal one have few digits
    torch.testing.assert_close(message.sum(), (a + b) + c, rtol=1e-6, atol=rounding)
    weights = torch.tensor([2.0, 0.0, -1.0])
    torch.testing.assert_close(message.sum(weights), 2 * a - c, rtol=1e-6, atol=rounding)


@pytest.mark.parametrize(("compressor", "segments", "x"), CASES)
def test_clearing(compressor: Compressor, segments: tuple[int, ...], x: Tensor) -> None:
    """Entries that were sent are set to zero; the others are unchanged."""
    message = compressor.compress(x, segments, NOISE)
    cleared, sent = message.clear_in(x.clone()), message.dense() != 0
    assert not cleared[sent].any()
    assert torch.equal(cleared, x.masked_fill(sent, 0))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS.keys())
def test_nothing_broken_is_swallowed(compressor: Compressor, bad: float) -> None:
    for segments in SEGMENTS:
        x = torch.randn(3, sum(segments), generator=torch.Generator().manual_seed(2))
        x[1, -1] = bad
        assert compressor.compress(x, segments, NOISE).finite().tolist() == [True, False, True]


@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS.keys())
def test_paper_counts_no_more_than_a_dense_message(compressor: Compressor) -> None:
    message = compressor.compress(torch.randn(3, 346), (300, 5, 40, 1), NOISE)
    assert (compressor.num_bits_paper(message) <= 346 * 32).all()


def test_recipes_fit_twenty_lines() -> None:
    from importlib.resources import files

    for name in RECIPES:
        assert len((files("configs") / "algorithm" / f"{name}.yaml").read_text("utf-8").splitlines()) <= 20
