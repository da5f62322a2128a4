"""1-bit Adam is torch's Adam while it warms up, and then what its paper's equations give."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.aggregators import MajorityVote
from bench.algorithm import Algorithm
from bench.compressors import Identity, ScaledSign, Shortest, WarmUp
from bench.errors import InputError
from bench.feedback import Differences
from bench.laws.toys import Toy, flat, loader, toy_data, train
from bench.local_steps import LocalSteps
from bench.moments import Moments
from bench.round.known import LearnedMoments
from bench.rules import LASGWK2
from bench.tests.found import RECIPES

M, LR, BETAS, EPSILON = 4, 0.01, (0.9, 0.99), 1e-8


class Plain(Toy):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=LR)


def recipe(num_rounds: int) -> Algorithm:
    warm = WarmUp(ScaledSign(), num_rounds)
    return replace(RECIPES["onebit_adam"], compressor=warm, downlink=warm, moments=Moments(*BETAS, EPSILON))


def scaled_sign(x: Tensor, sizes: list[int]) -> Tensor:
    parts = [torch.where(part >= 0, 1.0, -1.0) * part.abs().mean() for part in x.split(sizes)]
    return torch.cat(parts)


def expected(rounds: int, warm: int) -> Tensor:
    """The parameters after so many rounds, of which `warm` are torch's Adam."""
    torch.manual_seed(3)
    shared = Plain()
    parameters = list(shared.parameters())
    sizes = [p.numel() for p in parameters]
    adam = torch.optim.Adam(parameters, lr=LR, betas=BETAS, eps=EPSILON)
    errors, kept, momentum, root = torch.zeros(M, sum(sizes)), torch.zeros(sum(sizes)), Tensor(), Tensor()
    for t, batch in zip(range(rounds), loader(toy_data(), M, range(M), 4), strict=False):
        own = zip(*(part.chunk(M) for part in batch), strict=True)
        rows = [torch.autograd.grad(shared.training_step(list(one)), parameters) for one in own]
        gradients = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        if t < warm:
            for p, mean in zip(parameters, gradients.mean(dim=0).split(sizes), strict=True):
                p.grad = mean.view_as(p)
            adam.step()
            states = [adam.state[p] for p in parameters]
            momentum = torch.cat([state["exp_avg"].flatten() for state in states])
            variance = torch.cat([state["exp_avg_sq"].flatten() for state in states]) / (1 - BETAS[1] ** warm)
            root = variance.sqrt() + EPSILON
            continue
        sent = torch.zeros_like(momentum)
        for row, error in zip(gradients, errors, strict=True):
            error += BETAS[0] * momentum + (1 - BETAS[0]) * row
            message = scaled_sign(error, sizes)
            error -= message
            sent += message / M
        kept += sent
        momentum = scaled_sign(kept, sizes)
        kept -= momentum
        step = momentum / (1 - BETAS[0] ** (t + 1)) / root
        with torch.no_grad():
            for p, part in zip(parameters, step.split(sizes), strict=True):
                p.sub_(LR * part.view_as(p))
    return flat(shared)


@pytest.mark.parametrize(("rounds", "warm"), [(6, 6), (9, 5)])
def test_it_is_adam_and_then_signs_of_its_momentum(rounds: int, warm: int) -> None:
    ours = train(recipe(warm), Plain, rounds=rounds)
    apart = (ours.weights - expected(rounds, warm)).abs()
    assert apart.quantile(0.98) < 1e-5, "but signs of what is near zero, which may differ by rounding"
    assert apart.max() < 4 * LR * rounds


def test_what_is_sent_when() -> None:
    """Whole vectors both ways, then a bit an entry and a scale a tensor."""
    first, whole = (train(recipe(2), Plain, rounds=rounds).strategy.cohort.ledger for rounds in (2, 5))
    dense, signs = 387 * 32, 387 + 4 * 32
    assert first.uplink_bits == 2 * M * dense
    assert whole.uplink_bits - first.uplink_bits == 3 * M * signs


def test_an_entry_that_had_no_gradient_does_not_move() -> None:
    """A sign sent for it later would be divided by ε."""
    moments = LearnedMoments(Moments(), torch.zeros(2))
    moments.direction(torch.tensor([0.0, 1.0]), exact=True)
    first, second = moments.direction(torch.tensor([0.5, 0.5]), exact=False).tolist()
    assert first == 0
    assert second > 0


def test_moments_of_halves_are_those_of_floats() -> None:
    """In bfloat16 v would not move: what a round adds to it is less than its rounding."""
    draws = torch.Generator().manual_seed(1)
    half, whole = (LearnedMoments(Moments(), torch.zeros(50, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32))
    for _ in range(300):
        answer = torch.randn(50, generator=draws).bfloat16()
        step = half.direction(answer, exact=True)
        assert step.dtype == torch.bfloat16
        torch.testing.assert_close(step.float(), whole.direction(answer.float(), exact=True), rtol=0.01, atol=0)
    assert torch.equal(half.second, whole.second)


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (torch.optim.Adam, "configure_optimizers: Adam; onebit_adam steps by Adam's moments of its own, SGD without"),
        (partial(torch.optim.SGD, momentum=0.9), "configure_optimizers: SGD with momentum; onebit_adam steps by"),
        (partial(torch.optim.SGD, weight_decay=0.1), None),
    ],
)
def test_nothing_steps_twice(optimizer: Any, told: str | None) -> None:
    class Theirs(Toy):
        def configure_optimizers(self) -> Any:
            return optimizer(self.parameters(), lr=LR)

    with nullcontext() if told is None else pytest.raises(InputError, match=told):
        train("onebit_adam", Theirs, rounds=2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"compressor": ScaledSign()}, "moments: they are learned in rounds that are dense both ways, WarmUp"),
        ({"downlink": ScaledSign()}, "moments: they are learned in rounds that are dense both ways, WarmUp"),
        ({"aggregator": MajorityVote("plus"), "downlink": None}, "aggregator: MajorityVote; with moments signs have"),
        ({"feedback": Differences(), "downlink": Shortest()}, "feedback: Differences; with moments answers are news"),
        ({"rule": LASGWK2()}, "rule: LASGWK2; "),
        ({"local_steps": LocalSteps(2)}, "local_steps: LocalSteps; with moments the outer step"),
        ({"units": "update"}, "units: 'update'; moments are of gradients"),
    ],
)
def test_what_moments_cannot_go_with(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        replace(recipe(2), downlink_feedback=None, **changes)


@pytest.mark.parametrize(
    ("meant", "told"),
    [
        (lambda: WarmUp(ScaledSign(), 0), "num_rounds: 0; at least 1"),
        (lambda: WarmUp(Identity(), 1), "then: Identity; it leaves nothing to warm up for"),
        (lambda: Moments(beta1=1), r"beta1: 1; a number in \[0, 1\)"),
        (lambda: Moments(epsilon=0), "epsilon: 0; a finite number above 0"),
    ],
)
def test_bad_values(meant: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        meant()
