"""The quantities measured in a round are correct, and measuring them does not change the run."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer

from bench.algorithm import Algorithm
from bench.compressors import TopK
from bench.laws.toys import Gauged, train
from bench.round.ledger import Report
from bench.strategies.simulated import CompressedStrategy
from bench.tests.found import RECIPES


class Reports(Gauged):
    """Keeps every round's report and gradients."""

    def __init__(self) -> None:
        self.seen: list[Report] = []
        self.gradients: list[torch.Tensor] = []

    def on_before_zero_grad(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        assert isinstance(trainer.strategy, CompressedStrategy)
        assert trainer.strategy.fitting.pending is not None
        gradients = trainer.strategy.fitting.pending[-1]
        self.gradients.append(gradients.dense(torch.arange(4)).clone())

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        assert isinstance(trainer.strategy, CompressedStrategy)
        self.seen.append(trainer.strategy.last_report)


@pytest.mark.parametrize("name", RECIPES)
def test_measuring_changes_nothing(name: str) -> None:
    reports = Reports()
    gauged, plain = train(name, rounds=14, callbacks=[reports]), train(name, rounds=14)
    assert torch.equal(gauged.weights, plain.weights)
    assert gauged.ledger == plain.ledger
    assert np.isnan(plain.strategy.last_report.gradient_norm)
    for report, gradients in zip(reports.seen, reports.gradients, strict=True):
        assert report.gradient_square == pytest.approx(gradients.double().square().sum(dim=1).numpy(), rel=1e-6)
        assert np.isnan(report.error_square).tolist() == (~report.uploaded).tolist()
        assert report.compression_error >= 0 or not report.uploaded.any()
        assert np.isnan(report.bound).tolist() == (~report.uploaded).tolist()
        assert report.bits_over_bound >= 0.95 or not report.uploaded.any()


SPARSE = RECIPES["sparse"]


@pytest.mark.parametrize(
    ("algorithm", "low", "high"),
    [
        (RECIPES["sgd"], 0, 0),
        (replace(SPARSE, compressor=TopK(1.0)), 0, 0),
        (replace(SPARSE, compressor=TopK(0.1)), 1e-3, 0.9),
    ],
    ids=["identity", "everything", "a tenth"],
)
def test_compression_error(algorithm: Algorithm, low: float, high: float) -> None:
    """The identity has no compression error; that of top-k stays within its contraction."""
    reports = Reports()
    train(algorithm, callbacks=[reports])
    assert all(low <= report.compression_error <= high for report in reports.seen)


def test_a_round_without_uploads_has_no_error() -> None:
    nobody, nan = np.zeros(2, bool), np.full(2, np.nan)
    flags, sizes = [nobody] * 4, [np.zeros(2, int)] * 4
    report = Report._make([nobody, *sizes, *flags, nan, nan, np.array([9.0, 25.0]), nan, nan, nan])
    assert np.isnan(report.compression_error)
    assert np.isnan(report.bits_over_bound)
    assert report.gradient_norm == 4
