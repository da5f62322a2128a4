"""var of a history is that of its messages: on gradients whose norms differ, and of compressors that tell theirs."""

import math

import numpy as np
import pytest

from bench.compressors import QSGD, Compressor, GSparClosed, UniSp
from bench.findings.variance import variance
from bench.kernels.noise import Noise
from bench.laws.compressors import inputs

DIM = 2_000


@pytest.mark.parametrize("compressor", [UniSp(0.1), GSparClosed(0.5), QSGD(4, bucket=None)], ids=str)
def test_it_is_the_ratio_of_square_norms(compressor: Compressor) -> None:
    """Rows with the errors of 500 messages give what these messages' own square norms do."""
    x, rows, sent, given = inputs((DIM,))["normal"][:1], [], 0.0, 0.0
    for round in range(500):
        gradient = x * (1 + round % 3)
        message = compressor.compress(gradient, (DIM,), [Noise(0, round, 0)])
        square = float(gradient.double().square().sum())
        error = float((message.dense() - gradient).double().square().sum()) / square
        rows.append({"compression_error": error, "gradient_norm": math.sqrt(square)})
        sent, given = sent + float(message.dense().double().square().sum()), given + square
    assert variance(rows) == pytest.approx(sent / given, rel=0.02)


def test_runs_that_do_not_tell() -> None:
    assert np.isnan(variance([]))
    assert np.isnan(variance([{"compression_error": None, "gradient_norm": 1.0}]))
