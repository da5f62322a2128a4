"""PowerSGD projects matrices, and its directions converge to the best ones."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.compressors import PowerSGD, TopK
from bench.errors import InputError
from bench.feedback import NoFeedback
from bench.gradients.layout import Layout, TensorSize, num_rows_of
from bench.laws.toys import Bilinear, dyadic_data, train
from bench.rules import LASGWK2
from bench.suite.models.resnet import resnet18
from bench.tests.found import RECIPES
from bench.wire.dense import DenseMessage

SEGMENTS = (TensorSize(30 * 20, 30), 7, TensorSize(9 * 50, 9))
SIZES = (30, 20), (9, 50)


def matrices(x: Tensor) -> list[Tensor]:
    first, _, second = x.split(SEGMENTS)
    return [first.view(SIZES[0]), second.view(SIZES[1])]


def vector(num: int = 1) -> Tensor:
    return torch.randn(num, sum(SEGMENTS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def followed(compressor: PowerSGD, x: Tensor, num_rounds: int) -> PowerSGD:
    """Return the compressor after a number of rounds whose answer was x (1, d)."""
    for _ in range(num_rounds):
        compressor = compressor.after(DenseMessage(x), SEGMENTS)
    return compressor


@pytest.mark.parametrize("num_rounds", [0, 1, 2, 5])
def test_it_projects(num_rounds: int) -> None:
    """Message and error are orthogonal, projecting again changes nothing, and the sum is the sum of the projections."""
    compressor = followed(PowerSGD(rank=3), vector(), num_rounds)
    x = vector(3)
    message = compressor.compress(x, SEGMENTS, [])
    sent = message.dense()
    for row, kept in zip(x, sent, strict=True):
        for matrix, projected in zip(matrices(row), matrices(kept), strict=True):
            assert torch.linalg.matrix_rank(projected) == 3
            assert abs(float((projected * (matrix - projected)).sum())) < 1e-10
    torch.testing.assert_close(compressor.compress(sent, SEGMENTS, []).dense(), sent)
    torch.testing.assert_close(message.sum(), sent.sum(dim=0))
    assert message.num_bits.tolist() == [64 * (3 * [(30 + 9), (20 + 50)][num_rounds % 2] + 7)] * 3


def test_an_answer_is_followed_however_it_came() -> None:
    """After a dense answer and after a low-rank one, the directions have the same span."""
    x, compressor = vector(), followed(PowerSGD(2), vector(), 1)
    low = compressor.compress(x, SEGMENTS, [])
    for a, b in zip(
        compressor.after(low, SEGMENTS).bases, compressor.after(DenseMessage(x), SEGMENTS).bases, strict=True
    ):
        torch.testing.assert_close(a @ a.T, b @ b.T)


def test_low_rank_is_sent_whole_from_the_second_answer_on() -> None:
    x = vector()
    for matrix in matrices(x[0]):
        matrix.copy_(matrix[:, :2] @ matrix[:2])
    error = [(x - followed(PowerSGD(2), x, n).compress(x, SEGMENTS, []).dense()).norm() for n in range(3)]
    assert error[0] > 1
    assert max(error[1:]) < 1e-10


def test_the_directions_come_to_be_the_best() -> None:
    x = vector()
    sent = followed(PowerSGD(2), x, 400).compress(x, SEGMENTS, []).dense()[0]
    for matrix, projected in zip(matrices(x[0]), matrices(sent), strict=True):
        tail = torch.linalg.svdvals(matrix)[2:].norm()
        assert float((matrix - projected).norm()) == pytest.approx(float(tail), rel=1e-3)


def test_full_rank_is_sgd() -> None:
    full = PowerSGD(rank=16)
    recipe = replace(RECIPES["powersgd"], compressor=full, downlink=full, feedback=NoFeedback())
    assert torch.equal(train(recipe).weights, train("sgd").weights)


def test_zeros_stop_nothing() -> None:
    """After an answer of zeros the directions are drawn anew: unit vectors could meet only zeros of dead units."""
    nothing, x = torch.zeros(1, sum(SEGMENTS), dtype=torch.float64), vector()
    for matrix in matrices(x[0]):
        matrix[:2], matrix[:, :2] = 0, 0
    compressor = followed(PowerSGD(2), nothing, 1)
    assert compressor.compress(x, SEGMENTS, []).dense().norm() > 0.1 * x.norm()
    again = followed(PowerSGD(2), nothing, 2)
    assert not any(torch.equal(a, b) for a, b in zip(compressor.bases, again.bases, strict=True))
    for basis in (*compressor.bases, *again.bases):
        torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64))


def test_in_half_precision() -> None:
    assert train("powersgd", precision="bf16-true").weights.isfinite().all()


def test_sizes_of_matrices_can_be_copied() -> None:
    size = copy.deepcopy(pickle.loads(pickle.dumps(SEGMENTS)))[0]
    assert (size, num_rows_of(size)) == (600, 30)


def test_nothing_is_lost_but_the_error() -> None:
    """w^t − γ/M Σ_m e_m^t = w^0 − γ/M Σ_{j<t} Σ_m g_m^j."""
    run = train("powersgd", Bilinear, dyadic_data(), rounds=29)
    dense = train("sgd", Bilinear, dyadic_data(), rounds=29)
    error = run.strategy.cohort.workers.kept[:, 0]
    assert error.abs().sum() > 1
    torch.testing.assert_close(run.weights - 0.25 * error.mean(dim=0), dense.weights, rtol=1e-4, atol=1e-4)


def test_bits_of_resnet18() -> None:
    """With rank 2, rounds alternate between 1/581 and 1/154 of the bits of ResNet18's gradient, for the answer, too."""
    layout = Layout(resnet18().named_parameters())
    segments, like = layout.segments("tensor"), layout.vector
    left = PowerSGD(2)
    right = left.after(left.blank(1, segments, like), segments)
    bits = [int(c.blank(1, segments, like).num_bits) for c in (left, right)]
    shapes = [(num_rows_of(size), size // num_rows_of(size)) for size in segments]
    vectors = sum(n * m for n, m in shapes if min(n, m) <= 2)
    products = [shape for shape in shapes if min(shape) > 2]
    assert bits == [32 * (vectors + 2 * sum(shape[side] for shape in products)) for side in (0, 1)]
    assert [round(32 * sum(segments) / b) for b in bits] == [581, 154]


def test_what_it_does_not_go_with() -> None:
    recipe = RECIPES["powersgd"]
    for parts, told in (
        ({"rule": LASGWK2()}, "rule: LASGWK2"),
        ({"granularity": "model"}, "granularity: 'model'"),
        ({"aggregator": RECIPES["signsgd_mv"].aggregator}, "downlink: PowerSGD"),
    ):
        with pytest.raises(InputError, match=told):
            replace(recipe, **parts)
    replace(recipe, compressor=TopK(0.1))  # the answer may be of low rank whatever workers send
    with pytest.raises(InputError, match="rank: 0; at least 1"):
        PowerSGD(0)
