"""What every compressor does, whatever vector it is given. Each law is a function that asserts it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from bench.compressors import Compressor
from bench.gradients.layout import TensorSize
from bench.kernels.noise import Noise
from bench.wire.message import Message, concatenate

Segments = tuple[int, ...]
Case = tuple[str, Compressor, Segments, Tensor]
"""A name, and what laws are about: a compressor, the sizes of segments, and vectors (3, d)."""

MATRICES: Segments = (TensorSize(300, 15), 5, TensorSize(40, 8), 1)
SEGMENTS: list[Segments] = [(1,), (7,), (300, 5, 40, 1), MATRICES, (20_000, 10), (60_000,)]
NOISE = [Noise(0, 5, rank) for rank in range(3)]
NUM_DRAWS = 2000
MOST_PADDING = 24  # bits: what is left of the last bytes of three fields


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


def cases(compressors: Mapping[str, Compressor], segments: Sequence[Segments] = SEGMENTS) -> list[Case]:
    """Return every compressor with every kind of vector in every partition; long vectors of four kinds only."""
    of_long = ("normal", "one-hot", "heavy tails", "mostly zero")
    return [
        (f"{name}-{parts}-{kind}", compressor, parts, x)
        for name, compressor in compressors.items()
        for parts in segments
        for kind, x in inputs(parts).items()
        if sum(parts) < 1000 or kind in of_long
    ]


def encoding(compressor: Compressor, segments: Segments, x: Tensor) -> None:
    """The bytes carry the whole message, `num_bits` is their size without padding, and a blank message decodes them."""
    message = compressor.compress(x, segments, NOISE)
    payloads = [message.encode(row) for row in range(3)]
    _counted(payloads, message, len(message.tensors))
    decoded = compressor.blank(1, segments, x).decode(payloads)
    for name, t in message.tensors.items():
        assert torch.equal(decoded.tensors[name], t), f"{name} is decoded to something else"
    assert torch.equal(decoded.dense(), message.dense()), "the decoded message stands for another vector"


def _counted(payloads: Sequence[np.ndarray], message: Message, num_fields: int) -> None:
    padding = torch.tensor([8 * len(payload) for payload in payloads]) - message.num_bits
    assert (padding >= 0).all(), f"num_bits: {-int(padding.min())} bits are counted and not sent"
    assert (padding < min(8 * num_fields, MOST_PADDING)).all(), (
        f"num_bits: {int(padding.max())} bits are sent and not counted"
    )


def slices(compressor: Compressor, segments: Segments, x: Tensor) -> None:
    """Each piece represents a slice of the vector and is encoded on its own; joined, the pieces are the message."""
    message, schema = compressor.compress(x, segments, NOISE), compressor.blank(1, segments, x)
    if not message.cuttable:
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
            _counted(payloads, piece, 1 + len(piece.tensors))
            decoded = like.decode(payloads)
            assert torch.equal(decoded.dense(), piece.dense())
            assert torch.equal(decoded.sum(), piece.sum())


def compression(compressor: Compressor, segments: Segments, x: Tensor) -> None:
    """Message + error = input; the error is as small as declared; rows are independent; the input is unchanged, and not
    needed any more, but by those that say `keeps_input`."""
    given = x.clone()
    message = compressor.compress(given, segments, NOISE)
    assert torch.equal(given, x), "compress changes its input"
    if not compressor.keeps_input:
        given.fill_(torch.nan)
    if (positions := message.tensors.get("indices")) is not None:
        assert ((positions >= 0) & (positions < x.shape[1])).all(), "sums do not check them"
    error = message.subtract_from(x.clone())
    rounding = 1e-6 * float(message.dense().abs().max())  # of (x − sent) + sent
    torch.testing.assert_close(message.dense() + error, x, rtol=1e-6, atol=rounding)
    if (contraction := compressor.contraction(segments)) is not None:
        lengths = x.double().norm(dim=1)
        bound = lengths * ((1 - contraction) ** 0.5 * (1 + 1e-6) + 1e-6)
        assert (error.double().norm(dim=1) <= bound).all(), f"contraction: more is lost than {contraction} allows"
    if (most := compressor.error_bound(segments)) is not None:
        assert (error.double().norm(dim=1) <= most * (1 + 1e-6)).all(), f"error_bound: more is lost than {most}"
    alone = concatenate(
        [compressor.compress(row[None], segments, [noise]) for row, noise in zip(x, NOISE, strict=True)]
    )
    assert torch.equal(alone.dense(), message.dense()), "a row's message depends on the other rows"
    assert torch.equal(alone.num_bits, message.num_bits), "num_bits of a row depend on the other rows"


def sums(compressor: Compressor, segments: Segments, x: Tensor) -> None:
    """The sum adds the rows in rank order, each times its weight if weights are given."""
    message = compressor.compress(x, segments, NOISE)
    a, b, c = message.dense()
    rounding = 1e-6 * float(x.abs().max()) + 1e-44  # floats below the smallest normal one have few digits
    torch.testing.assert_close(message.sum(), (a + b) + c, rtol=1e-6, atol=rounding)
    weights = torch.tensor([2.0, 0.0, -1.0])
    torch.testing.assert_close(message.sum(weights), 2 * a - c, rtol=1e-6, atol=rounding)


def clearing(compressor: Compressor, segments: Segments, x: Tensor) -> None:
    """Entries that were sent are set to zero; the others are unchanged."""
    message = compressor.compress(x, segments, NOISE)
    cleared, sent = message.clear_in(x.clone()), message.dense() != 0
    assert not cleared[sent].any()
    assert torch.equal(cleared, x.masked_fill(sent, 0))


def nothing_broken_is_swallowed(compressor: Compressor) -> None:
    """A NaN or infinity in a vector shows in its message, and in no other."""
    for bad in (torch.nan, torch.inf, -torch.inf):
        for segments in SEGMENTS:
            x = torch.randn(3, sum(segments), generator=torch.Generator().manual_seed(2))
            x[1, -1] = bad
            assert compressor.compress(x, segments, NOISE).finite().tolist() == [True, False, True]


def bits_within_a_dense_message(compressor: Compressor) -> None:
    """On a gradient no row takes more bits, on the wire or as the paper counts, than its floats, but for a byte.

    A compressor whose messages may, since their length depends on data, says so by `may_exceed_dense`.
    """
    x = torch.randn(3, 346, generator=torch.Generator().manual_seed(4))
    message = compressor.compress(x, (300, 5, 40, 1), NOISE)
    assert (compressor.num_bits_paper(message) <= 346 * 32).all()
    assert compressor.may_exceed_dense or (message.num_bits <= 346 * 32 + 8).all()


def what_it_says_of_itself(compressor: Compressor) -> None:
    """`lossless`, `entrywise` and `repeats` are so, and no message has fewer than 0 bits."""
    segments = (300, 5, 40, 1)
    x = torch.randn(3, sum(segments), generator=torch.Generator().manual_seed(4))
    message = compressor.compress(x, segments, NOISE)
    sent = message.dense()
    assert (compressor.num_bits_paper(message) >= 0).all(), "num_bits_paper: fewer than 0"
    assert not compressor.lossless or torch.equal(sent, x), "lossless: something is lost"
    if compressor.entrywise:
        parts = [compressor.compress(part.contiguous(), (part.shape[1],), NOISE) for part in x.split([100, 246], dim=1)]
        assert torch.equal(torch.cat([part.dense() for part in parts], dim=1), sent), (
            "entrywise: entries depend on more"
        )
    if compressor.repeats:
        again = compressor.compress(sent.clone(), segments, NOISE).dense()
        assert (again - sent).norm() <= 1e-3 * sent.norm(), "repeats: a sent vector is sent differently again"


def half_precision_only_rounds(compressor: Compressor) -> None:
    """In 16 bits, too, the bytes carry the message, and it is that of the same vector in 32 bits, up to rounding."""
    x = torch.randn(3, 1040, generator=torch.Generator().manual_seed(1))
    for dtype in (torch.bfloat16, torch.float16):
        short, segments = x.to(dtype), (400, 640)
        encoding(compressor, segments, short)
        long = compressor.compress(short.float(), segments, NOISE).dense()
        distance = (compressor.compress(short, segments, NOISE).dense().float() - long).norm()
        assert distance <= 0.2 * long.norm(), f"{dtype}: {float(distance / long.norm()):.2g} of the norm away"


def drawn(compressor: Compressor, x: Tensor, num_draws: int = NUM_DRAWS, segments: Segments = ()) -> Tensor:
    """Return what N workers send that compress the same vector: (d,) -> (N, d)."""
    noise = [Noise(0, 0, rank) for rank in range(num_draws)]
    return compressor.compress(x.expand(num_draws, -1).contiguous(), segments or (len(x),), noise).dense().double()


def deviations(error: Tensor, x: Tensor) -> float:
    """Return the distance of the mean of many draws from x, in standard errors, the largest over several directions.

    Args:
        error: (N, d) draws of x, minus x.
        x: (d,).
    """
    generator = torch.Generator().manual_seed(4)
    directions = torch.cat([x.double()[None], x.sign().double()[None], torch.randn(5, len(x), generator=generator)])
    along = error @ directions.T
    noise = along.std(dim=0).clamp(min=1e-6 * float(directions.norm(dim=1).max() * x.norm()) + 1e-30)
    return float((along.mean(dim=0).abs() / noise).max() * sqrt(len(error)))


def unbiased_within_its_variance(compressor: Compressor) -> None:
    """Where a variance is declared, the mean of 2,000 draws is x within five deviations, and they vary no more."""
    if (declared := compressor.variance(MATRICES)) is None:
        return
    for kind in ("normal", "heavy tails", "one-hot", "constant", "mostly zero"):
        x = inputs(MATRICES)[kind][1]
        error = drawn(compressor, x, segments=MATRICES) - x.double()
        assert deviations(error, x) < 5, f"biased, on {kind} vectors"
        squares, allowed = error.square().sum(dim=1), declared * float(x.double().square().sum())
        least = float(squares.mean() - 5 * squares.std() / sqrt(NUM_DRAWS))
        assert least <= allowed + 1e-9, f"more variance than declared, on {kind} vectors"


ON_CASES = (encoding, slices, compression, sums, clearing)
ON_COMPRESSORS = (
    nothing_broken_is_swallowed,
    bits_within_a_dense_message,
    what_it_says_of_itself,
    half_precision_only_rounds,
    unbiased_within_its_variance,
)
