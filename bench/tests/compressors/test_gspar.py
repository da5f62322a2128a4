"""GSpar keeps what its paper proves: a gradient that is nearly sparse is sent with little variance in few entries.

A gradient is (ρ, s)-approximately sparse if its entries but the s largest have ρ times the L1 norm of these. Then the
closed form with ε = ρ has at most 1 + ρ times its square norm (Lemma 3), and sends at most (1 + ρ) s entries, in a
length bounded in turn (Theorem 4).
"""

from math import log2, sqrt

import pytest
import torch
from torch import Tensor

from bench.compressors import Compressor, GSparClosed, UniSp
from bench.kernels.noise import Noise
from bench.laws.compressors import inputs
from bench.wire.message import Message

DIM, FLOAT = 2_000, 32
NUM_DRAWS = 1_000


def gradient(kind: str) -> Tensor:
    """A gradient (d,), from dense to sparse."""
    if kind == "geometric":
        return torch.logspace(0, -20, DIM, base=2) * inputs((DIM,))["normal"][0].sign()
    return inputs((DIM,))[kind][0]


def rest(x: Tensor, s: int) -> float:
    """ρ: the L1 norm of all entries but the s largest, over that of these."""
    above = x.abs().double().topk(s).values.sum()
    return float(x.abs().double().sum() / above) - 1


def least(values: Tensor) -> float:
    """What the mean exceeds with certainty: five standard errors less than that of the draws."""
    return float(values.mean() - 5 * values.std() / sqrt(len(values)))


def sent(compressor: Compressor, x: Tensor) -> Message:
    """What many workers send that compress the same gradient."""
    noise = [Noise(0, 0, rank) for rank in range(NUM_DRAWS)]
    return compressor.compress(x.expand(NUM_DRAWS, -1).contiguous(), (DIM,), noise)


def square_norms(message: Message, x: Tensor) -> Tensor:
    """‖Q(x)‖² / ‖x‖² of every draw, (N,)."""
    return message.dense().double().square().sum(dim=1) / float(x.double().square().sum())


@pytest.mark.parametrize("s", [20, 100, 500])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "geometric", "ascending", "ties"])
def test_lemma_3_and_theorem_4(kind: str, s: int) -> None:
    """Measured over 1,000 draws; the variance is even met, as the closed form wastes none."""
    x = gradient(kind)
    rho = rest(x, s)
    message = sent(compressor := GSparClosed(rho), x)
    squares, counts = square_norms(message, x), (message.dense() != 0).sum(dim=1).double()
    assert least(squares) <= 1 + rho <= -least(-squares)
    assert least(counts) <= (1 + rho) * s
    signed = 1 + log2(DIM)  # the theorem leaves signs out: a bit each, or one an entry of the dense code
    bound = s * (FLOAT + log2(DIM)) + min(rho * s * signed, 2 * DIM) + FLOAT
    assert least(compressor.num_bits_paper(message).double()) <= bound


def test_what_draws_evenly_is_beyond_the_bound() -> None:
    """UniSp with as many entries has more variance than Lemma 3 allows."""
    x, s = gradient("geometric"), 100
    rho = rest(x, s)
    assert least(square_norms(sent(UniSp((1 + rho) * s / DIM), x), x)) > 1 + rho
