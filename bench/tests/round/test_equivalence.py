"""Methods that are equal in theory give equal runs, and every method keeps its invariants."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.aggregators import Mean, SignOfMean, Sum
from bench.algorithm import Algorithm
from bench.compressors import Identity, TopK
from bench.errors import InputError
from bench.feedback import Differences, ErrorFeedback
from bench.kernels.noise import Noise
from bench.laws.toys import Dyadic, Recorder, Toy, dyadic_data, flat, toy_data, train
from bench.round.rates import LaggedRate
from bench.round.server import Server
from bench.rules import LAGWK, LASGPS, LASGWK1, LASGWK2, LazyRule
from bench.tests.found import COVERING, RECIPES, RULES
from bench.wire.dense import DenseMessage

LAZY = [rule for rule in RULES if isinstance(rule, LazyRule) and not rule.drafts]
INF = float("inf")


def with_density(recipe: Algorithm, density: float) -> Algorithm:
    return replace(recipe, compressor=TopK(density))


@pytest.mark.parametrize("name", ["sgd", "sparse"])
@pytest.mark.parametrize("rule", LAZY, ids=lambda rule: type(rule).__name__)
def test_never_skipping_changes_nothing(name: str, rule: LazyRule) -> None:
    """LASG without skips equals SGD, SASG without skips equals Sparse, bit for bit."""
    lazy = train(replace(RECIPES[name], rule=replace(rule, coefficient=-INF)))
    always = train(name)
    assert torch.equal(lazy.weights, always.weights)
    assert lazy.ledger["uplink_bits"] == always.ledger["uplink_bits"]
    assert lazy.ledger["control_bits"] == 4 * 30
    assert always.ledger["control_bits"] == 0


def test_full_density_is_sgd() -> None:
    torch.testing.assert_close(train(with_density(RECIPES["sparse"], 1.0)).weights, train("sgd").weights)


def test_sasg_at_full_density_is_lasg() -> None:
    sasg, lasg = Recorder(), Recorder()
    full = train(with_density(RECIPES["sasg"], 1.0), callbacks=[sasg])
    torch.testing.assert_close(full.weights, train("lasg", callbacks=[lasg]).weights)
    assert sasg.uploads == lasg.uploads
    assert 0 < full.ledger["uploads"] < 4 * 30, "this test needs a run in which some skip"


def test_sasg_is_the_product_of_its_parts() -> None:
    recipe = RECIPES["sasg"]
    assert (recipe.rule, recipe.compressor) == (RECIPES["lasg"].rule, RECIPES["sparse"].compressor)


@pytest.mark.parametrize("name", ["lasg", "sasg"])
@pytest.mark.parametrize("rule", LAZY, ids=lambda rule: type(rule).__name__)
def test_always_skipping_uploads_once_in_eleven_rounds(name: str, rule: LazyRule) -> None:
    """Workers upload in rounds 0 to 9, then alternate between D skips and one forced upload."""
    recorder = Recorder()
    train(
        replace(RECIPES[name], rule=replace(rule, coefficient=INF)), rounds=43, data=toy_data(800), callbacks=[recorder]
    )
    uploading = [t for t, flags in enumerate(recorder.uploads) if any(flags)]
    assert uploading == [*range(10), 20, 31, 42]
    assert all(all(flags) == any(flags) for flags in recorder.uploads)


@pytest.mark.parametrize("granularity", ["tensor", "model"])
def test_nothing_is_lost_but_the_error(granularity: str) -> None:
    """w^t − (1/M) Σ_m e_m^t = w^0 − (γ/M) Σ_{j<t} Σ_m g_m^j, without rounding error, as the arithmetic is exact."""
    recipe = replace(RECIPES["sparse"], granularity=granularity)
    sparse, dense = train(recipe, Dyadic, dyadic_data()), train("sgd", Dyadic, dyadic_data())
    error = sparse.strategy.cohort.workers.kept[:, 0]
    assert error.abs().sum() > 0
    assert torch.equal(sparse.weights - error.mean(dim=0), dense.weights)


@pytest.mark.parametrize("name", ["lasg", "sasg"])
def test_thresholds_count_a_means_rate_as_a_mth(name: str) -> None:
    """With γ/M in its thresholds a mean skips where a sum does; the runs are bit-equal if M is a power of two."""
    runs = []
    for aggregator, lr in ((Mean(), 0.2), (Sum(), 0.05)):
        recorder = Recorder()
        recipe = replace(RECIPES[name], aggregator=aggregator)
        runs.append((train(recipe, lambda lr=lr: Toy(lr), callbacks=[recorder]), recorder.uploads))
    (mean, when), (total, when_total) = runs
    assert when == when_total
    assert 0 < mean.ledger["uploads"] < 4 * 30, "this test needs a run in which some skip"
    assert torch.equal(mean.weights, total.weights)


@pytest.mark.parametrize(
    "name", [name for name, r in COVERING.items() if not (isinstance(r.aggregator, SignOfMean) or r.moments)]
)
def test_the_server_adds_the_last_uploads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The direction of every round is the broadcast aggregate of each worker's last upload; if workers send
    differences, those of earlier rounds are added. A server that keeps errors adds what earlier broadcasts left out."""
    algorithm, recorder = COVERING[name], Recorder()
    sent: dict[int, torch.Tensor] = {}
    expected: list[torch.Tensor] = []
    receive = Server.receive
    rate = algorithm.feedback.rate if isinstance(algorithm.feedback, Differences) else 0.0
    estimate, error = torch.zeros(2, 387)

    def watching(server: Server, uploaded: Any, arrived: Any, learning_rate: float) -> Any:
        ranks = uploaded.nonzero()[0].tolist()
        if rate:
            sent.update((rank, torch.zeros(387)) for rank in range(4))
        sent.update(zip(ranks, arrived.dense().clone() if ranks else [], strict=True))
        noise = Noise(0, len(expected), 4)
        last = DenseMessage(torch.stack([sent[rank] for rank in range(4)]))
        total = algorithm.aggregator.aggregate(last, None, noise)
        x = estimate + total + error
        segments = server.segments if algorithm.downlink_feedback else (387,)
        expected.append(algorithm.broadcast.compress(x[None], segments, [noise]).dense()[0])
        if algorithm.downlink_feedback is not None:
            error.copy_(x - expected[-1])
        estimate.add_(total, alpha=rate)
        return receive(server, uploaded, arrived, learning_rate)

    monkeypatch.setattr(Server, "receive", watching)
    train(algorithm, rounds=14, callbacks=[recorder])  # from round 10 on workers may skip
    scale = 0.05 if algorithm.units == "update" else 1
    for direction, answer in zip(recorder.directions, expected, strict=True):
        torch.testing.assert_close(direction * scale, answer)


def test_a_skipper_stands_still() -> None:
    """A worker that skips keeps its error, and the server keeps its last message."""
    run = train(replace(RECIPES["sasg"], rule=LASGWK2(coefficient=INF)), rounds=10)
    later = train(replace(RECIPES["sasg"], rule=LASGWK2(coefficient=INF)), rounds=15)
    assert torch.equal(run.strategy.cohort.workers.kept, later.strategy.cohort.workers.kept)
    assert torch.equal(run.strategy.cohort.server.last.dense(), later.strategy.cohort.server.last.dense())
    assert later.strategy.cohort.workers.past.upload_rounds.tolist() == [9] * 4


def test_rescaled_stale_updates() -> None:
    """At a constant learning rate rescaling changes nothing; after a decay the reused update shrinks with the rate."""
    recipe = replace(RECIPES["sasg"], rule=LASGWK2(coefficient=INF))
    rescaled = replace(recipe, stale_scale="rescaled")
    assert torch.equal(train(recipe, rounds=15).weights, train(rescaled, rounds=15).weights)

    class Decaying(Toy):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [12], gamma=0.25)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    faithful_moves, rescaled_moves = Recorder(), Recorder()
    train(recipe, Decaying, rounds=14, callbacks=[faithful_moves])
    train(rescaled, Decaying, rounds=14, callbacks=[rescaled_moves])
    # p.grad is the update over γ: 0.05 before the decay, 0.0125 after it.
    torch.testing.assert_close(faithful_moves.directions[13], 4 * faithful_moves.directions[11])
    torch.testing.assert_close(rescaled_moves.directions[13], rescaled_moves.directions[11])


def test_the_window_of_movements() -> None:
    """It holds D − 1 of them, so none if D = 1."""
    for max_age in (1, 2, 10):
        rule = LASGWK2(max_age=max_age)
        movements = train(replace(RECIPES["lasg"], rule=rule), rounds=15).strategy.cohort.workers.past.movements
        assert len(movements) == max_age - 1


def test_thresholds_follow_the_learning_rate_an_epoch_late() -> None:
    rate = LaggedRate()
    seen = [rate.follow(lr, epoch) for epoch, lr in [(0, 0.1), (0, 0.1), (1, 0.1), (2, 0.01), (2, 0.01), (3, 0.01)]]
    assert [lagged for _, lagged in seen] == [0.1, 0.1, 0.1, 0.1, 0.1, 0.01]
    assert [latest for latest, _ in seen] == [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]


def test_thresholds_take_the_last_rate_above_zero() -> None:
    """A rate of 0 moves nothing, so it is ignored. In the first epoch, and until a lagging rate exists, none lags."""
    rate = LaggedRate()
    steps = [(0, 0.0), (0, 0.1), (0, 0.0), (1, 0.2), (1, 0.0), (2, 0.0)]
    assert [rate.follow(lr, epoch) for epoch, lr in steps] == [
        (None, None),
        (0.1, 0.1),
        (0.1, 0.1),
        (0.2, 0.1),
        (0.2, 0.1),
        (0.2, 0.2),
    ]


def test_lag_hardly_ever_skips_where_lasg_does() -> None:
    """Mini-batch noise keeps the change that LAG measures above its threshold (Chen, Sun, Yin 2021)."""
    uploads = {
        type(rule).__name__: train(replace(RECIPES["lasg"], rule=rule), rounds=60, data=toy_data(960)).ledger["uploads"]
        for rule in (LAGWK(coefficient=0.5), LASGWK1(coefficient=0.5), LASGWK2(coefficient=0.5))
    }
    assert uploads["LAGWK"] == 240
    assert uploads["LASGWK2"] < 240


def test_the_server_decides_without_a_second_backward() -> None:
    ledger = train(replace(RECIPES["lasg"], rule=LASGPS(coefficient=0.5, smoothness=0.3))).ledger
    assert ledger["num_backwards"] == 4 * 30
    assert ledger["uploads"] < 4 * 30


def test_groups_with_learning_rates_of_their_own() -> None:
    """An update contains the γ of each tensor's own parameter group."""

    class Grouped(Toy):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            first, *others = self.parameters()
            return torch.optim.SGD([{"params": [first], "lr": 0.01}, {"params": others, "lr": 0.1}])

    torch.testing.assert_close(
        train(with_density(RECIPES["sparse"], 1.0), Grouped).weights, train("sgd", Grouped).weights
    )


def test_recipes_refuse_nonsense() -> None:
    sgd = RECIPES["sgd"]
    for parts, field in (
        ({"feedback": ErrorFeedback()}, "feedback"),
        ({"stale_scale": "rescaled"}, "stale_scale"),
        ({"stale_scale": "rescaled", "units": "update"}, "stale_scale"),
        ({"units": "bits"}, "units"),
        ({"granularity": "layer"}, "granularity"),
    ):
        with pytest.raises(InputError, match=field):
            replace(sgd, **parts)
    assert isinstance(sgd.broadcast, Identity)
    assert flat(Toy()).numel() == 387
