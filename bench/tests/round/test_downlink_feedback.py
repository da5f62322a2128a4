"""Error feedback at the server: what a lossy answer leaves out is added to later ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import vector_to_parameters

from bench.aggregators import MajorityVote
from bench.algorithm import Algorithm
from bench.compressors import PowerSGD, Shortest, Sign, TopK
from bench.errors import InputError
from bench.feedback import Differences, ErrorFeedback, MomentumCorrection, NesterovCorrection, NoFeedback
from bench.laws.toys import Dyadic, Toy, dyadic_data, flat, toy_data, train
from bench.rules import LASGWK2
from bench.tests.found import RECIPES

SQUEEZE, ZHENG = RECIPES["doublesqueeze"], RECIPES["dist_ef_sgdm"]


def test_nothing_is_lost_but_the_errors() -> None:
    """w^t − (1/M) Σ_m e_m − e = w^0 − (γ/M) Σ_j Σ_m g_m^j, e being the server's; without rounding, as the arithmetic
    is exact."""
    recipe = replace(RECIPES["sparse"], downlink=TopK(0.01), downlink_feedback=ErrorFeedback())
    both, dense = train(recipe, Dyadic, dyadic_data()), train("sgd", Dyadic, dyadic_data())
    cohort = both.strategy.cohort
    assert cohort.server.kept.abs().sum() > 0
    assert torch.equal(both.weights - cohort.workers.kept[:, 0].mean(dim=0) - cohort.server.kept[0], dense.weights)


class Falling(Toy):
    """γ falls by half every five rounds."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def scaled_signs(x: torch.Tensor) -> torch.Tensor:
    """(d,) in the segments of `Toy` -> ‖x_b‖₁ / d_b · sign(x_b)."""
    return torch.cat([part.abs().mean() * torch.where(part < 0, -1.0, 1.0) for part in x.split([320, 16, 48, 3])])


def by_the_equations(made: Callable[[], Toy], falls: bool, beta: float, rounds: int) -> torch.Tensor:
    """The weights after some rounds of Zheng et al.'s algorithm 3, written out with errors of gradients. With constant
    γ and β = 0 it is DoubleSqueeze."""
    lightning.seed_everything(3, verbose=False)
    model, (x, y) = made(), toy_data().tensors
    order = torch.arange(len(x)).view(-1, 4, 4)
    errors, momenta, of_server, before = torch.zeros(4, 387), torch.zeros(4, 387), torch.zeros(387), 0.05
    for t in range(rounds):
        rate = 0.05 * 0.5 ** (t // 5) if falls else 0.05
        sent = []
        for m in range(4):
            loss = F.cross_entropy(model.network(x[order[t, m]]), y[order[t, m]])
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])])
            momenta[m] = beta * momenta[m] + gradient
            p = gradient + beta * momenta[m] + before / rate * errors[m]
            sent.append(scaled_signs(p))
            errors[m] = p - sent[m]
        p = torch.stack(sent).mean(dim=0) + before / rate * of_server
        answer = scaled_signs(p)
        of_server, before = p - answer, rate
        with torch.no_grad():
            vector_to_parameters(flat(model) - rate * answer, model.parameters())
    return flat(model)


@pytest.mark.parametrize(
    ("recipe", "made", "beta"),
    [
        (SQUEEZE, Toy, 0.0),
        (ZHENG, Toy, 0.9),  # its momentum is of gradients, ours of updates: the same while γ is constant
        (replace(ZHENG, feedback=NesterovCorrection(beta=0.0)), Falling, 0.0),
    ],
)
def test_against_the_papers_equations(recipe: Algorithm, made: Callable[[], Toy], beta: float) -> None:
    expected = by_the_equations(made, made is Falling, beta, rounds=12)
    torch.testing.assert_close(train(recipe, made, rounds=12).weights, expected, rtol=1e-4, atol=1e-6)


class Partly(Toy):
    """The last layer has a learning rate of 0 in rounds 4 to 8."""

    def configure_optimizers(self) -> Any:
        first, last = self.network[0].parameters(), self.network[2].parameters()
        optimizer = torch.optim.SGD([{"params": first}, {"params": last}], lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda t: 1.0, lambda t: float(not 4 <= t < 9)])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def test_errors_of_standing_entries_stay() -> None:
    kept = [train(ZHENG, Partly, rounds=rounds).strategy.cohort.server.kept[0] for rounds in (4, 8, 10)]
    assert kept[0][-51:].abs().sum() > 0
    assert torch.equal(kept[0][-51:], kept[1][-51:])
    assert not torch.equal(kept[0][:-51], kept[1][:-51])
    assert not torch.equal(kept[0][-51:], kept[2][-51:])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"downlink_feedback": MomentumCorrection()}, "a server keeps errors only, ErrorFeedback or null"),
        ({"downlink_feedback": NoFeedback()}, "a server keeps errors only, ErrorFeedback or null"),
        ({"aggregator": MajorityVote()}, "a vote has no error"),
        ({"feedback": Differences()}, "Differences are added to what all know"),
        ({"rule": LASGWK2()}, "LASGWK2 reuses uploads"),
        ({"downlink": Shortest()}, "the downlink Shortest leaves no error"),
        ({"downlink": None}, "the downlink Identity leaves no error"),
        ({"downlink": PowerSGD(1)}, "the downlink PowerSGD changes every round"),
        ({"downlink": Sign()}, "the downlink Sign does not contract"),
    ],
)
def test_what_a_server_cannot_keep(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=f"downlink_feedback: .*; {reason}"):
        replace(SQUEEZE, **changed)
