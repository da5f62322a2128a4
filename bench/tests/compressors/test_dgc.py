"""Deep gradient compression: momentum of unsent entries, which sending clears, and a density that falls."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.compressors import TopK, TopKWarmUp
from bench.compressors.topk import top_k
from bench.errors import InputError
from bench.feedback import ErrorFeedback, MomentumCorrection
from bench.laws.kills import assert_goes_on
from bench.laws.toys import Recorder, counted, train
from bench.laws.worlds import M, run_processes
from bench.rules import LASGWK2
from bench.tests.found import RECIPES

DGC = RECIPES["dgc"]
STEADY = replace(DGC, compressor=TopK(0.1))
WARMING = replace(DGC, compressor=TopKWarmUp(0.01, interval=4))


def test_the_vectors_that_are_kept() -> None:
    """They follow the equations, written out here for dense vectors."""
    feedback, beta = MomentumCorrection(beta=0.9), 0.9
    kept = torch.zeros(2, 200)
    u, v = torch.zeros(200), torch.zeros(200)
    for step in range(8):
        gradient = torch.randn(1, 200, generator=torch.Generator().manual_seed(step))
        u = beta * u + gradient[0]
        v = v + u
        x = feedback.compensate(gradient.clone(), kept)
        torch.testing.assert_close(x[0], v)
        message = TopK(0.1).compress(x, (200,), [])
        mask = torch.zeros(200, dtype=torch.bool)
        mask[top_k(v[None], (200,), (20,))[0][0]] = True
        torch.testing.assert_close(message.dense()[0], v * mask)
        u, v = u * ~mask, v * ~mask
        feedback.settle(kept, message)
        torch.testing.assert_close(kept, torch.stack([v, u]))


def test_without_momentum_it_is_error_feedback() -> None:
    without = train(replace(STEADY, feedback=MomentumCorrection(beta=0)))
    assert torch.equal(without.weights, train(replace(STEADY, feedback=ErrorFeedback())).weights)


def test_what_is_sent_at_once_has_no_momentum() -> None:
    whole = train(replace(DGC, compressor=TopK(1.0)))
    torch.testing.assert_close(whole.weights, train("sgd").weights)


def test_long_gradients_are_clipped() -> None:
    """Clipping comes before anything else and leaves short gradients unchanged."""
    feedback, kept = MomentumCorrection(max_norm=2.0), torch.zeros(2, 3)
    torch.testing.assert_close(feedback.compensate(torch.tensor([[3.0, 0, 4]]), kept), torch.tensor([[1.2, 0, 1.6]]))
    kept.zero_()
    assert torch.equal(feedback.compensate(torch.tensor([[0.3, 0, 0.4]]), kept), torch.tensor([[0.3, 0, 0.4]]))
    kept.zero_()  # the norm is finite in float32, its square is not
    torch.testing.assert_close(feedback.compensate(torch.tensor([[3e30, 0, 4e30]]), kept)[0, 2], torch.tensor(1.6))
    assert feedback.compensate(torch.tensor([[0.0, torch.inf, 0.0]]), kept).isnan().any()


def test_the_density_falls() -> None:
    """The bits of every round show densities of 1/4, 1/16, 1/64, then 1 %."""
    recorder = Recorder()
    train(WARMING, rounds=18, callbacks=[recorder])
    totals = [0, *(ledger["uplink_bits_paper"] for ledger in recorder.ledgers)]
    bits = [after - before for before, after in itertools.pairwise(totals)]
    counts = [sum(max(1, int(n * density)) for n in (320, 16, 48, 3)) for density in (1 / 4, 1 / 16, 1 / 64, 0.01)]
    assert bits == [32 * 4 * k for k in counts for _ in range(4)] + [32 * 4 * counts[-1]] * 2


def test_simulated_equals_real(tmp_path: Path) -> None:
    simulated = train(WARMING, workers=M, rounds=18)
    for process in run_processes(tmp_path, WARMING, rounds=18):
        assert torch.equal(process["weights"], simulated.weights)
        assert counted(process["ledger"]) == counted(simulated.ledger)


def test_killed_and_resumed(tmp_path: Path) -> None:
    """The run is killed while the density falls."""
    assert_goes_on(WARMING, [3, 4, 9], tmp_path / "saved.ckpt", max_epochs=1)


def test_what_cannot_be_meant() -> None:
    with pytest.raises(InputError, match="rule: LASGWK2; a message of TopKWarmUp is valid for one round only"):
        replace(DGC, rule=LASGWK2())
    with pytest.raises(InputError, match=r"max_norm: 2\.0; it clips gradients"):
        replace(DGC, feedback=MomentumCorrection(max_norm=2.0), units="update")
    with pytest.raises(InputError, match="interval: 0; at least 1"):
        TopKWarmUp(0.1, interval=0)
    with pytest.raises(InputError, match="beta: 1; "):
        MomentumCorrection(beta=1)
    with pytest.raises(InputError, match="max_norm: 0; "):
        MomentumCorrection(max_norm=0)
