"""Accelerators compress all uploaders at once. What comes of it is what comes of one after the other."""

import pytest
import torch

from bench.adversary import Random
from bench.laws.toys import Gauged, Recorder, train
from bench.round.workers import Workers
from bench.tests.found import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_all_at_once_is_one_after_the_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In state, weights, ledger and gauges, to the bit; also with a Byzantine worker, whose message is replaced."""
    runs, rounds = [], 12 if RECIPES[name].rule.adaptive else 4
    for together in (False, True):
        monkeypatch.setattr(Workers, "together", together)
        recorder = Recorder()
        run = train(name, rounds=rounds, callbacks=[recorder, Gauged()], adversary=Random(1))
        runs.append((run, recorder.ledgers, run.strategy.last_report.error_square))
    (alone, ledgers, errors), (joined, of_joined, errors_of_joined) = runs
    assert torch.equal(alone.weights, joined.weights)
    assert torch.equal(alone.strategy.cohort.workers.kept, joined.strategy.cohort.workers.kept)
    assert ledgers == of_joined
    assert errors.tolist() == pytest.approx(errors_of_joined.tolist(), rel=1e-12, nan_ok=True)
