"""`Differences`: workers and server keep the same estimate, runs reach the minimum, and LAQ skips as published."""

from dataclasses import replace
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bench.aggregators import MajorityVote, Mean, Sum
from bench.algorithm import Algorithm
from bench.compressors import QSGD, Grid, GSpar, Identity, PowerSGD, RandomK, Sign, TernGrad, TopK
from bench.errors import InputError
from bench.feedback import Differences, NoFeedback
from bench.laws.toys import Dyadic, Recorder, dyadic_data, train
from bench.rules import LAQ, LASGWK2, Always
from bench.tests.found import RECIPES

M, ROUNDS, LR = 4, 150, 0.2
DIFFERENCES = [name for name, recipe in RECIPES.items() if isinstance(recipe.feedback, Differences)]


class Quadratic(lightning.LightningModule):
    """Worker m has the loss ½‖A_m (w − w_m)‖² in every round. At the minimum of the sum its gradient is not zero."""

    def __init__(self, lr: float = LR) -> None:
        super().__init__()
        self.lr = lr
        self.w = nn.Parameter(torch.zeros(30))

    def training_step(self, batch: Any) -> Tensor:
        scale, target = batch
        return (scale * (self.w - target)).square().sum() / 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Return the workers' scales and targets, (M, 30) each, and the minimiser (30,) of the mean loss."""
    generator = torch.Generator().manual_seed(2)
    scale, target = 0.5 + torch.rand(M, 30, generator=generator), torch.randn(M, 30, generator=generator)
    return scale, target, (scale.square() * target).sum(dim=0) / scale.square().sum(dim=0)


def descend(algorithm: Algorithm | str, rounds: int = ROUNDS, lr: float = LR, **options: Any) -> Any:
    scale, target, _ = problem()
    data = TensorDataset(scale.repeat(rounds, 1), target.repeat(rounds, 1))
    return train(algorithm, lambda: Quadratic(lr), data, workers=M, rounds=rounds, batch_size=1, **options)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_both_sides_agree(name: str) -> None:
    """The estimate of the aggregate is that of the vectors that the workers keep, even if some skip."""
    for rule in {RECIPES[name].rule, LASGWK2() if name != "diana" else Always()}:
        recipe = replace(RECIPES[name], rule=rule)
        cohort = train(recipe, Dyadic, dyadic_data()).strategy.cohort
        estimate = cohort.known.estimate if recipe.answers_news else cohort.server.estimate
        known = -cohort.workers.kept[:, 0].sum(dim=0) * recipe.aggregator.weight(4)
        assert known.norm() > 1
        torch.testing.assert_close(estimate, known, rtol=1e-5, atol=1e-4)


def test_whole_differences_are_sgd() -> None:
    whole = replace(RECIPES["ef21"], compressor=Identity())
    torch.testing.assert_close(train(whole).weights, train("sgd").weights)
    skipping, recorder = Recorder(), Recorder()
    lasg = train("lasg", callbacks=[recorder])
    lazy = train(replace(whole, rule=RECIPES["lasg"].rule), callbacks=[skipping])
    assert recorder.uploads == skipping.uploads
    torch.testing.assert_close(lazy.weights, lasg.weights)


@pytest.mark.parametrize("name", [name for name in DIFFERENCES if RECIPES[name].compressor != Identity()])
def test_they_reach_the_minimum_where_plain_messages_do_not(name: str) -> None:
    """The workers' gradients differ at the minimum, which differences reach and plain compressed gradients miss."""
    *_, minimum = problem()
    recipe = replace(RECIPES[name], rule=Always())
    if name == "ef21":
        recipe = replace(recipe, compressor=TopK(0.2))
    run = descend(recipe)
    plain = descend(replace(recipe, feedback=NoFeedback()))
    left, left_by_plain = ((r.weights - minimum).norm() for r in (run, plain))
    assert left < 1e-2 * left_by_plain
    assert left < 1e-3


def test_laq_by_its_equations() -> None:
    """They equal those of an independent implementation (Sun et al. 2019, equations 5 to 7, algorithm 2)."""
    scale, target, _ = problem()
    bits, xi, memory, lr, longest = 3, 0.08, 10, LR / M, 100
    w, sent, history, uploads = torch.zeros(30), torch.zeros(M, 30), [], []
    sent_error, clock = torch.zeros(M), [0] * M
    for t in range(60):
        threshold = sum(xi * float(step.square().sum()) for step in history[-memory:]) / (lr * M) ** 2
        flags = []
        for m in range(M):
            gradient = scale[m] ** 2 * (w - target[m])
            radius = (gradient - sent[m]).abs().max()
            step = 2 * radius / (2**bits - 1)
            quantized = sent[m] - radius + step * torch.floor((gradient - sent[m] + radius) / step + 0.5)
            error = (gradient - quantized).square().sum()
            skips = (quantized - sent[m]).square().sum() <= threshold + 3 * (error + sent_error[m])
            flags.append(bool(not skips or clock[m] > longest or t == 0))
            clock[m] += 1
            if flags[-1]:
                sent[m], sent_error[m], clock[m] = quantized, error, 1
        uploads.append(flags)
        history.append(lr * sent.sum(dim=0))
        w = w - history[-1]
    recorder = Recorder()
    recipe = replace(RECIPES["laq"], compressor=Grid(bits))
    run = descend(recipe, rounds=60, callbacks=[recorder])
    assert recorder.uploads == uploads
    assert M < run.ledger["uploads"] < 60 * M / 2
    torch.testing.assert_close(run.weights, w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lag", "laq"])
def test_thresholds_count_a_means_rate_as_a_mth(name: str) -> None:
    """With a mean at γ, workers skip as with a sum at γ/M. Where M is a power of two, weights are equal bit for bit."""
    mean, total = Recorder(), Recorder()
    by_mean = descend(replace(RECIPES[name], aggregator=Mean()), rounds=60, callbacks=[mean])
    by_sum = descend(replace(RECIPES[name], aggregator=Sum()), rounds=60, lr=LR / M, callbacks=[total])
    assert mean.uploads == total.uploads
    assert M < by_mean.ledger["uploads"] < 60 * M, "this test needs a run in which some skip"
    assert torch.equal(by_mean.weights, by_sum.weights)


def test_laq_that_never_skips_is_quantized_descent() -> None:
    never = descend(replace(RECIPES["laq"], rule=LAQ(coefficient=-float("inf"))), rounds=30)
    always = descend(replace(RECIPES["laq"], rule=Always()), rounds=30)
    assert torch.equal(never.weights, always.weights)
    assert never.ledger["uplink_bits"] == always.ledger["uplink_bits"] == 30 * M * (30 * 4 + 32)
    recorder = Recorder()
    descend(replace(RECIPES["laq"], rule=LAQ(coefficient=float("inf"), max_age=6)), rounds=16, callbacks=[recorder])
    assert [t for t, flags in enumerate(recorder.uploads) if any(flags)] == [0, 7, 14]


@pytest.mark.parametrize("name", [name for name in DIFFERENCES if RECIPES[name].feedback == Differences()])
def test_who_skips_is_heard_as_before(name: str) -> None:
    """With constant gradients, a round in which all workers skip has the direction of the round before."""

    class Constant(Dyadic):
        def training_step(self, batch: Any) -> Tensor:
            return self.w @ torch.arange(96.0) + self.v.sum()

    recorder = Recorder()
    train(replace(RECIPES[name], rule=LASGWK2(coefficient=float("inf"))), Constant, dyadic_data(), callbacks=[recorder])
    skipped = [t for t, flags in enumerate(recorder.uploads) if not any(flags)]
    assert len(skipped) == 19
    assert all(torch.equal(recorder.directions[t], recorder.directions[t - 1]) for t in skipped)


def test_what_they_do_not_go_with() -> None:
    recipe = RECIPES["ef21"]
    for parts, told in (
        ({"aggregator": MajorityVote("random")}, "aggregator: MajorityVote"),
        ({"units": "update"}, "units: 'update'"),
        ({"compressor": Sign()}, "feedback: Differences; Sign neither contracts nor"),
        ({"compressor": PowerSGD()}, "feedback: Differences; PowerSGD neither contracts nor"),
        ({"feedback": Differences(0.5), "rule": LASGWK2()}, "rate: 0.5; LASGWK2 reuses old uploads, 1 is needed"),
        ({"feedback": NoFeedback(), "rule": LAQ()}, "rule: LAQ; feedback: NoFeedback"),
        ({"compressor": TernGrad(), "feedback": Differences(0.1)}, "feedback: Differences; TernGrad neither"),
    ):
        with pytest.raises(InputError, match=told):
            replace(recipe, **parts)
    for rate in (0, 1.1):
        with pytest.raises(InputError, match=f"rate: {rate}; a number in "):
            Differences(rate)
    for compressor, feedback, most in (
        (GSpar(0.1), Differences(), "0.0909"),  # ω = 9 + 1, of segments of any size
        (RandomK(0.1), Differences(0.5), "0.0625"),  # k = 1 in the tensor of 16 entries
        (QSGD(1, "max"), Differences(0.2), "0.106"),  # 2 / (1 + √320)
    ):
        with pytest.raises(InputError, match=f"rate: {feedback.rate}; with .* differences grow, at most {most}"):
            train(replace(recipe, compressor=compressor, feedback=feedback))
    with pytest.raises(InputError, match="memory_length: 0; at least 1"):
        LAQ(memory_length=0)
