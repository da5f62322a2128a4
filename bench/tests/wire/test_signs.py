"""Invariants of sign methods and majority votes, and the codes of their messages."""

from dataclasses import replace
from math import log2

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from bench.adversary import Random, Scale
from bench.aggregators import MajorityVote
from bench.algorithm import Algorithm
from bench.compressors import Identity, ScaledSign, Sign, Ternary, TopKSign
from bench.errors import InputError
from bench.feedback import Accumulate, ErrorFeedback, Momentum, NoFeedback
from bench.kernels.noise import Noise
from bench.laws.toys import Dyadic, Toy, dyadic_data, train
from bench.rules import LASGWK2
from bench.tests.found import RECIPES
from bench.wire import signs
from bench.wire.bounds import set_bits
from bench.wire.dense import DenseMessage
from bench.wire.message import concatenate

SERVER = Noise(0, 0, 9)
SIGN_RECIPES = [name for name, recipe in RECIPES.items() if isinstance(recipe.compressor, Sign | TopKSign)]


def normal(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_entries", [1, 7, 8, 9, 4095, 4096, 4097, 9001])
def test_compiled_passes_are_the_plain_ones(num_entries: int) -> None:
    """float32 takes the compiled path, float64 the plain one."""
    x = normal(5, num_entries).round()  # with zeros of both signs
    bits, finite = signs.pack(x)
    assert torch.equal(bits, signs.pack(x.double())[0])
    assert finite.all()
    unpacked = signs.unpack(bits, torch.empty_like(x))
    assert torch.equal(unpacked, torch.where(x < 0, -1.0, 1.0))
    assert torch.equal(unpacked.double(), signs.unpack(bits, torch.empty_like(x).double()))
    total = signs.add_up(bits, torch.empty(num_entries))
    assert torch.equal(total, unpacked.sum(dim=0))
    assert torch.equal(total.double(), signs.add_up(bits, torch.empty(num_entries).double()))
    for bad in (torch.nan, torch.inf, -torch.inf):
        broken = x.clone()
        broken[2, num_entries // 2] = bad
        assert signs.pack(broken)[1].tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 7, 8, 31, 100, 70_000])
def test_counting_any_number_of_voters(num_rows: int) -> None:
    dim = 5000 if num_rows < 1000 else 20
    x = normal(num_rows, dim).sub_(0.0 if num_rows < 1000 else 3.0)  # of many, nearly all vote for a minus
    assert torch.equal(signs.add_up(signs.pack(x)[0], torch.empty(dim)), torch.where(x < 0, -1.0, 1.0).sum(dim=0))


def test_the_error_of_a_scaled_sign() -> None:
    """‖C(p) − p‖² = (1 − ‖p‖₁² / (n‖p‖²)) ‖p‖² in each segment (Karimireddy et al. 2019, Lemma 8)."""
    p, segments = normal(3, 900) ** 3, (500, 399, 1)
    sent = ScaledSign().compress(p, segments, ()).dense()
    for part, of_sent in zip(p.split(segments, dim=1), sent.split(segments, dim=1), strict=True):
        squared = part.square().sum(dim=1)
        expected = (1 - part.abs().sum(dim=1) ** 2 / (part.shape[1] * squared)) * squared
        torch.testing.assert_close((of_sent - part).square().sum(dim=1), expected, atol=1e-5, rtol=1e-5)


def test_one_voter_is_signsgd() -> None:
    for voted, plain in (("signsgd_mv", "signsgd"), ("signum_mv", "signum")):
        assert torch.equal(train(voted, workers=1).weights, train(plain, workers=1).weights)


def test_signum_without_momentum_is_signsgd() -> None:
    for name in ("signum", "signum_mv"):
        without = replace(RECIPES[name], feedback=Momentum(beta=0.0))
        assert torch.equal(train(without).weights, train(name.replace("signum", "signsgd")).weights)


@pytest.mark.parametrize("granularity", ["tensor", "model"])
def test_sparse_signs_of_everything_are_signsgd_with_majority_vote(granularity: str) -> None:
    """With ρ = 0 and K = d, and ties giving 0."""
    everything = replace(RECIPES["sparse_signsgd"], compressor=TopKSign(1.0), granularity=granularity)
    voted = train(replace(RECIPES["signsgd_mv"], aggregator=MajorityVote("zero")))
    memoryless = train(replace(everything, feedback=Accumulate(0.0)))
    assert torch.equal(memoryless.weights, voted.weights)
    assert memoryless.ledger["downlink_bits"] == voted.ledger["downlink_bits"]
    assert torch.equal(train(replace(everything, feedback=NoFeedback())).weights, voted.weights)
    assert torch.equal(train(everything).weights, voted.weights)  # all is sent, so all is cleared


@pytest.mark.parametrize("name", [name for name in SIGN_RECIPES if not RECIPES[name].rule.adaptive])
def test_scale_does_not_matter(name: str) -> None:
    """Workers whose losses are multiplied by positive numbers send the same signs. (Lazy rules compare gradients with
    steps, which do not grow with them.)"""

    class Scaled(Toy):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return 8 * super().training_step(batch)

    assert torch.equal(train(name, Scaled).weights, train(name).weights)


@pytest.mark.parametrize("compressor", [Sign(), Ternary(), TopKSign(0.1)])
def test_scaling_a_worker_leaves_its_message(compressor: Sign | Ternary | TopKSign) -> None:
    x, scales = normal(4, 500), torch.tensor([1e-6, 0.3, 1.0, 1e6])
    noise = [Noise(0, 0, rank) for rank in range(4)]
    ours, scaled = compressor.compress(x, (500,), noise), compressor.compress(x * scales[:, None], (500,), noise)
    assert torch.equal(ours.dense(), scaled.dense())


def test_the_accumulator() -> None:
    """It is zero where an entry was sent, and the running sum of gradients elsewhere."""
    feedback, compressor, accumulator = Accumulate(), TopKSign(0.1), torch.zeros(1, 300)
    expected = torch.zeros(1, 300)
    for step in range(5):
        gradient = normal(1, 300, seed=step)
        x = feedback.compensate(gradient, accumulator)
        expected += gradient
        torch.testing.assert_close(x, expected)
        message = compressor.compress(x, (300,), ())
        feedback.settle(accumulator, message)
        expected[:, message.indices[0]] = 0
        assert torch.equal(accumulator, expected)
    assert (accumulator == 0).sum() >= 30


def test_zeros_that_stay_zero() -> None:
    """If workers and server use three values, a coordinate whose gradient is zero at all workers does not move."""
    recipe = replace(RECIPES["signsgd_mv"], compressor=Ternary(), aggregator=MajorityVote("zero"))
    run = train(recipe, Dyadic, TensorDataset(torch.nn.functional.pad(dyadic_data().tensors[0][:, 8:], (8, 0))))
    assert not run.weights[:8].any()  # their inputs are zero
    assert run.weights[8:96].any()
    assert run.ledger["downlink"] == "ternary"


def test_where_nobody_votes() -> None:
    """P(no voter) = (1 − K/d)^M for random supports: within five standard deviations."""
    num_workers, density, dim = 15, 0.05, 40_000
    message = TopKSign(density).compress(normal(num_workers, dim), (dim,), ())
    votes = MajorityVote("zero").aggregate(message, None, SERVER)
    voters = (message.dense() != 0).sum(dim=0)
    expected = (1 - density) ** num_workers
    deviation = (expected * (1 - expected) / dim) ** 0.5
    assert abs(float((voters == 0).double().mean()) - expected) < 5 * deviation
    assert not votes[voters == 0].any()
    assert votes[voters == 1].all()


@pytest.mark.parametrize("num_byzantine", range(8))
def test_few_liars_cannot_turn_a_vote(num_byzantine: int) -> None:
    """f flipped voters cannot move a coordinate whose |vote| > 2f."""
    honest = Sign().compress(normal(15, 3000) + 1.0, (3000,), ())
    adversary = Scale(num_byzantine)
    rows = honest.dense()
    lying = [
        adversary.corrupt(row[None], SERVER) if adversary.controls(m, 15) else row[None] for m, row in enumerate(rows)
    ]
    sent = concatenate([Sign().compress(row, (3000,), ()) for row in lying])
    vote, truth = MajorityVote().aggregate(sent, None, SERVER), MajorityVote().aggregate(honest, None, SERVER)
    settled = rows.sum(dim=0).abs() > 2 * num_byzantine
    assert settled.sum() > 100
    assert torch.equal(vote[settled], truth[settled])
    if num_byzantine:
        assert not torch.equal(vote, truth), "this test needs some that are turned"


def test_votes_survive_liars_and_means_do_not() -> None:
    """Two of five workers send −10 times their message: under the mean the loss rises, under the vote it falls."""

    def loss(recipe: Algorithm, rounds: int) -> float:
        run = train(recipe, lambda: Toy(lr=0.02), workers=5, rounds=rounds, adversary=Scale(2, factor=-10.0))
        return float(run.strategy.last_report.loss[:3].mean())

    mean, vote = RECIPES["sgd"], RECIPES["signsgd_mv"]
    assert loss(vote, 24) < loss(vote, 1)
    assert loss(mean, 24) > loss(mean, 1)


def test_random_liars_are_as_long_as_honest_workers() -> None:
    message = normal(1, 400)
    noise = Noise(1, 2, 3)
    lie = Random(1).corrupt(message, noise)
    torch.testing.assert_close(lie.norm(), message.norm())
    assert torch.equal(lie, Random(1).corrupt(message, noise))
    assert not torch.equal(lie, Random(1).corrupt(message, noise._replace(round=3)))


@pytest.mark.parametrize("ties", ["zero", "plus", "random"])
def test_ties(ties: str) -> None:
    """A tie gives what the recipe says; random ties are fair and drawn anew each round."""
    rows = normal(1, 10_000).sign()
    message = DenseMessage(torch.cat([rows, -rows]))
    votes = MajorityVote(ties).aggregate(message, None, SERVER)  # pyright: ignore[reportArgumentType]
    if ties == "random":
        assert set(votes.tolist()) == {-1.0, 1.0}
        assert abs(float(votes.mean())) < 0.05
        assert not torch.equal(votes, MajorityVote("random").aggregate(message, None, SERVER._replace(round=1)))
    else:
        assert set(votes.tolist()) == {0.0 if ties == "zero" else 1.0}


def test_zeros_of_workers() -> None:
    x = torch.tensor([[0.0, -0.0, -2.0, 3.0]])
    assert Sign("plus").compress(x, (4,), ()).dense().tolist() == [[1, 1, -1, 1]]
    assert Ternary().compress(x, (4,), ()).dense().tolist() == [[0, 0, -1, 1]]
    drawn = Sign("random").compress(torch.zeros(1, 10_000), (10_000,), [SERVER]).dense()
    assert abs(float(drawn.mean())) < 0.05


@pytest.mark.parametrize("zeros", [0.0, 0.001, 0.05, 0.2, 0.33, 0.4, 0.5, 0.6, 0.7, 0.9, 0.99, 1.0])
def test_a_ternary_code_costs_its_entropy(zeros: float) -> None:
    """Within 3 %, plus 100 bits for its length fields."""
    dim = 200_000
    x = normal(1, dim) * (torch.rand(1, dim, generator=torch.Generator().manual_seed(1)) >= zeros)
    message = Ternary().compress(x, (dim,), ())
    share = float((x == 0).double().mean())
    parts = np.array([share, (1 - share) / 2, (1 - share) / 2])
    entropy = -sum(p * log2(p) for p in parts if p) * dim
    assert int(message.num_bits) <= 1.03 * entropy + 100
    if zeros == 0:
        assert int(message.num_bits) == dim + 40


def test_the_bound_of_a_set() -> None:
    """⌈log₂ C(n, k)⌉ bits identify k of n positions; the encoded positions stay close to that."""
    assert set_bits((10,), (3,)) == pytest.approx(log2(120))
    assert set_bits((111_739,), (1_117,)) == pytest.approx(111_739 * 0.0808, rel=0.01)
    message = TopKSign(0.01).compress(normal(1, 400_000), (400_000,), ())
    bound = int(TopKSign(0.01).num_bits_paper(message))
    assert bound < int(message.num_bits) < 1.01 * bound + 32


def test_lazy_signs() -> None:
    """An unpublished combination: a vote in which the last signs of skipping workers count again."""
    lazy = replace(RECIPES["signsgd_mv"], rule=LASGWK2(coefficient=float("inf")))
    run = train(lazy, Dyadic, dyadic_data(), rounds=24)
    assert run.ledger["uploads"] == 4 * 11  # rounds 0 to 9, and one forced upload
    assert run.ledger["uplink_bits"] == 4 * 11 * 128


def test_recipes_of_signs_refuse_nonsense() -> None:
    for change, message in (
        ({"aggregator": MajorityVote("zero"), "downlink": Sign()}, "ties: 'zero'; the downlink Sign has two values"),
        ({"feedback": ErrorFeedback()}, "Sign does not contract"),
        ({"compressor": Identity(), "feedback": Accumulate()}, "Identity leaves no error"),
        ({"units": "update"}, "a sign discards the learning rate"),
        ({"units": "update", "compressor": Identity()}, "a sign discards the learning rate"),
    ):
        with pytest.raises(InputError, match=message):
            replace(RECIPES["signsgd_mv"], **change)
