"""Random compressors are unbiased, within their declared variance, and cost no more bits than their papers state.

Noise keys fix the draws, so results do not change from run to run. "Five deviations" means that a correct operator
would fail a check for less than one in a million other draws.
"""

import itertools
from dataclasses import replace
from functools import partial
from math import log2, sqrt

import numpy as np
import pytest
import torch

from bench.adversary import Scale
from bench.aggregators import Aggregator, Mean, Sum
from bench.compressors import QSGD, Compressor, GSpar, GSparClosed, Half, Natural, RandomK, Shortest, TernGrad, UniSp
from bench.compressors.half import Format
from bench.errors import NonFiniteError
from bench.gradients.layout import TensorSize
from bench.kernels import draws
from bench.kernels.noise import Noise
from bench.kernels.norms import Norm, mean_magnitudes, norms, norms_of_segments
from bench.kernels.tails import tail_of
from bench.laws.compressors import NUM_DRAWS, deviations, drawn, inputs, unbiased_within_its_variance
from bench.laws.toys import Toy, toy_data, train
from bench.runs.asynchronous import _scale
from bench.tests.found import COMPRESSORS, RECIPES
from bench.wire import elias, trits
from bench.wire.hybrid import COUNT_BITS
from bench.wire.positions import LENGTH_BITS

SEGMENTS = (TensorSize(300, 15), 5, TensorSize(40, 8), 1)
UNBIASED: dict[str, Compressor] = {
    str(c): c
    for c in (
        *COMPRESSORS.values(),
        *(GSpar(0.1, iterations) for iterations in (0, 1, 9)),
        *(GSparClosed(epsilon) for epsilon in (0.1, 10.0)),
        # Every pair of values of levels, norm and bucket occurs.
        *(QSGD(levels, "l2", bucket) for levels, bucket in ((1, None), (17, 64), (300, None))),
        *(QSGD(levels, "max", bucket) for levels, bucket in ((1, 64), (17, None), (300, 64))),
        UniSp(0.3),
        RandomK(0.3),
        TernGrad(clip=None, shared=False),
    )
    if c.variance(SEGMENTS) is not None
}


@pytest.mark.parametrize("name", [name for name in UNBIASED if name not in set(map(str, COMPRESSORS.values()))])
def test_unbiased_within_its_variance(name: str) -> None:
    """As the laws hold it for all recipes' compressors."""
    unbiased_within_its_variance(UNBIASED[name])


@pytest.mark.parametrize("name", UNBIASED)
def test_zeros_are_sent_as_they_are(name: str) -> None:
    assert not drawn(UNBIASED[name], torch.zeros(346), 20, SEGMENTS).any()


def test_the_test_of_bias_finds_one() -> None:
    x = inputs(SEGMENTS)["normal"][1]
    assert deviations(drawn(TernGrad(clip=0.5), x, segments=SEGMENTS) - x.double(), x) > 50


def test_powers_of_two_are_sent_as_they_are() -> None:
    """From the smallest normal one to the largest. Other values round up with the probability given by the mantissa."""
    x = torch.tensor([2.0**e for e in range(-126, 128)] + [-(2.0**e) for e in range(-126, 128)] + [0.0])
    assert torch.equal(drawn(Natural(), x, 3), x.double().expand(3, -1))
    sent = drawn(Natural(), torch.full((20_000,), -5.5), 1)[0]
    assert set(sent.tolist()) == {-4.0, -8.0}
    assert float((sent == -8.0).double().mean()) == pytest.approx(0.375, abs=5 * sqrt(0.375 * 0.625 / 20_000))


def test_a_scale_beyond_all_floats_sends_nothing() -> None:
    message = GSparClosed(1e300).compress(torch.randn(1, 99), (99,), [Noise(0, 0, 0)])
    assert message.finite().all()
    assert not message.dense().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_levels_of_half_precision_are_unbiased(dtype: torch.dtype) -> None:
    x = torch.full((20_000,), 0.7, dtype=dtype)
    x[0] = 1.0
    message = QSGD(1023, "max", 20_000).compress(x[None], (20_000,), [Noise(0, 0, 0)])
    levels = message.tensors["levels"].double()
    assert levels.max() == 1023
    assert float(levels[0, 1:].mean()) == pytest.approx(1023 * float(x[1]), abs=5 * 0.5 / sqrt(20_000))


@pytest.mark.parametrize(("short", "given"), [("fp16", torch.bfloat16), ("bf16", torch.float16)])
def test_no_sixteen_bits_become_infinite(short: Format, given: torch.dtype) -> None:
    most = torch.tensor([[torch.finfo(given).max, 65_504.0, 65_280.0]]).to(given)
    assert Half(short).compress(most, (3,), []).dense().isfinite().all()
    assert Natural().compress(torch.full((1, 999), 65_504.0).half(), (999,), [Noise(0, 0, 0)]).dense().isfinite().all()


@pytest.mark.parametrize(("format", "digits", "largest"), [("bf16", 8, 3.3895e38), ("fp16", 11, 65_504.0)])
def test_sixteen_bits_round(format: Format, digits: int, largest: float) -> None:
    x = inputs(SEGMENTS)["normal"]
    error = (Half(format).compress(x, SEGMENTS, []).dense() - x).abs()
    assert (error <= x.abs() * 2.0**-digits + 2.0**-25).all()  # the constant covers fp16's subnormal numbers
    beyond = Half(format).compress(torch.tensor([[3.4e38, -3.4e38]]), (2,), [])
    assert beyond.finite().all()
    torch.testing.assert_close(beyond.dense(), torch.tensor([[largest, -largest]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("density", [0.003, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["normal", "zeros", "ties", "one-hot", "heavy tails", "tiny"])
def test_compiled_passes_are_the_plain_ones(kind: str, density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both choose the same entries and levels, bit for bit, also for a part that begins inside the vector."""
    x = inputs((5_003,))[kind][1]
    scale, norms = float(x.abs().mean() / density), x.abs().amax().expand(10).contiguous()
    levels, plain = torch.zeros_like(x, dtype=torch.int16), torch.zeros_like(x, dtype=torch.int16)
    segments, scales, buckets = (3, 5_000), torch.tensor([scale, 2 * scale]), (*9 * [512], 395)
    positions, values = draws.drawn(x, segments, scales, (7, 8), 1_001)
    draws.quantized(x, norms, buckets, 5, (7, 8), 1_001, levels)
    exponents, plain_exponents = torch.zeros(2, len(x), dtype=torch.uint8)
    draws.powers(x, (7, 8), exponents)
    tail = tail_of(x, scale)
    for module in ("bench.kernels.draws", "bench.kernels.tails", "bench.wire.hybrid"):
        monkeypatch.setattr(f"{module}.is_compiled", lambda x: False)
    plain_positions, plain_values = draws.drawn(x, segments, scales, (7, 8), 1_001)
    assert torch.equal(plain_positions, positions)
    assert torch.equal(plain_values, values)
    draws.quantized(x, norms, buckets, 5, (7, 8), 1_001, plain)
    assert torch.equal(plain, levels)
    draws.powers(x, (7, 8), plain_exponents)
    assert torch.equal(plain_exponents, exponents)
    assert tail_of(x, scale) == pytest.approx(tail, rel=1e-12)


def test_numbers_are_uniform_and_keys_independent() -> None:
    """χ² test on 1,024 bins: pairs of neighbouring entries, and pairs from keys that differ in one bit."""
    cpu, size, key = torch.device("cpu"), 1_000_000, (1, 2)
    u = draws.uniforms(key, size, cpu)
    near = [(key[0] ^ 1 << bit, key[1]) for bit in range(32)] + [(key[0], key[1] ^ 1 << bit) for bit in range(32)]
    assert float(u.min()) > 0
    assert float(u.max()) <= 1
    others = (draws.uniforms(other, size, cpu) for other in near)
    for a, b in itertools.chain([(u, u.roll(1)), (u, u.roll(256))], ((u, other) for other in others)):
        bins = (a * 32).long().clamp(max=31) * 32 + (b * 32).long().clamp(max=31)
        counts = torch.bincount(bins, minlength=1024).double()
        expected = size / 1024
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_square - 1023) < 5 * sqrt(2 * 1023)


def closed_form(x: np.ndarray, epsilon: float) -> np.ndarray:
    """The probabilities of Algorithm 2, written as in the paper, with sorting."""
    order = np.argsort(-np.abs(x), kind="stable")
    sizes, total = np.abs(x[order]), np.sum(x**2)
    for k in range(len(x)):
        rest, squares = sizes[k:].sum(), (sizes[k:] ** 2).sum()
        if sizes[k] * rest <= epsilon * total + squares:
            return np.minimum(np.abs(x) * rest / (epsilon * total + squares), 1)
    raise AssertionError


def greedy(x: np.ndarray, density: float, iterations: int) -> np.ndarray:
    """The probabilities of Algorithm 3, written as in the paper."""
    d = len(x)
    p = np.minimum(density * d * np.abs(x) / np.abs(x).sum(), 1)
    for _ in range(iterations):
        active = p < 1
        if not p[active].sum():
            break
        c = (density * d - d + active.sum()) / p[active].sum()
        if c <= 1:
            break
        p = np.minimum(c * p, 1)
    return p


def probabilities(compressor: GSpar | GSparClosed, x: np.ndarray) -> np.ndarray:
    row = torch.from_numpy(x)
    scale = compressor.scale(tail_of(row, torch.inf), partial(tail_of, row), len(x))
    return np.minimum(np.abs(x) / scale, 1) if scale else (x != 0).astype(float)


VECTORS = {power: np.random.default_rng(3).standard_normal(2000) ** power for power in (1, 3, 9, 21)}


@pytest.mark.parametrize("x", VECTORS.values(), ids=map(str, VECTORS))
@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 20.0])
def test_closed_form_is_algorithm_2(x: np.ndarray, epsilon: float) -> None:
    """Its variance is exactly the allowed one, (1 + ε) ‖x‖²."""
    p = probabilities(GSparClosed(epsilon), x)
    np.testing.assert_allclose(p, closed_form(x, epsilon), rtol=1e-12)
    assert np.sum(x**2 / p) == pytest.approx((1 + epsilon) * np.sum(x**2))


@pytest.mark.parametrize("x", VECTORS.values(), ids=map(str, VECTORS))
@pytest.mark.parametrize("density", [0.003, 0.1, 0.7])
@pytest.mark.parametrize("iterations", [0, 1, 2, 50])
def test_greedy_is_algorithm_3(x: np.ndarray, density: float, iterations: int) -> None:
    """Its expected density does not exceed the given one."""
    p = probabilities(GSpar(density, iterations), x)
    np.testing.assert_allclose(p, greedy(x, density, iterations), rtol=1e-9)
    assert p.sum() <= density * len(x) * (1 + 1e-9)


@pytest.mark.parametrize("x", VECTORS.values(), ids=map(str, VECTORS))
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 20.0])
def test_greedy_ends_at_the_closed_form(x: np.ndarray, epsilon: float) -> None:
    """At the closed form's expected density, after enough iterations; after none where no entry has probability 1."""
    closed = probabilities(GSparClosed(epsilon), x)
    np.testing.assert_allclose(probabilities(GSpar(closed.mean(), 500), x), closed, rtol=1e-6)
    if closed.max() < 1:
        np.testing.assert_allclose(probabilities(GSpar(closed.mean(), 0), x), closed, rtol=1e-9)


@pytest.mark.parametrize("power", [3, 9, 21])
def test_few_entries_of_what_is_nearly_sparse(power: int) -> None:
    """If the entries outside the s largest have ρ times the ℓ₁ norm of the s largest, GSpar with ε = ρ sends at most
    (1 + ρ)s entries in expectation (Lemma 3), in at most s(b + log₂ d) + min(ρ s log₂ d, d) + b bits (Theorem 4), plus
    a sign for each entry and our headers."""
    x = VECTORS[power].astype(np.float32)
    sizes, d = np.sort(np.abs(x))[::-1].astype(float), len(x)
    headers = COUNT_BITS + trits.HEADER_BITS + 2 * LENGTH_BITS
    for s in (20, 200, 1000):
        rho = sizes[s:].sum() / sizes[:s].sum()
        compressor = GSparClosed(rho)
        assert probabilities(compressor, x.astype(float)).sum() <= (1 + rho) * s
        noise = [Noise(1, 0, rank) for rank in range(200)]
        message = compressor.compress(torch.from_numpy(x).expand(200, -1).contiguous(), (d,), noise)
        bound = s * (32 + log2(d)) + min(rho * s * log2(d), d) + 32
        assert message.num_bits.double().mean() <= bound + float(message.counts.double().mean()) + headers


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.6])
@pytest.mark.parametrize("power", [1, 9])
def test_the_wire_takes_no_more_than_the_papers_code(density: float, power: int) -> None:
    """In every row, apart from our headers."""
    x = torch.randn(20, 50_000, generator=torch.Generator().manual_seed(1)) ** power
    compressor, headers = GSpar(density), COUNT_BITS + trits.HEADER_BITS + 2 * LENGTH_BITS
    message = compressor.compress(x, (50_000,), [Noise(1, 0, rank) for rank in range(20)])
    assert (message.num_bits <= compressor.num_bits_paper(message) + headers).all()


@pytest.mark.parametrize("n", [100, 2_500, 40_000])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_qsgd_keeps_few_entries_in_few_bits(n: int, levels: int) -> None:
    """E‖Q‖₀ ≤ s(s + √n), and the code of gaps stays within Theorem 3.2's bound, with 1/2 for its o(1)."""
    x = torch.randn(n, generator=torch.Generator().manual_seed(1))
    message = QSGD(levels).compress(x.expand(50, -1).contiguous(), (n,), [Noise(1, 0, rank) for rank in range(50)])
    most = levels * (levels + sqrt(n))
    assert message.levels.count_nonzero(dim=1).double().mean() <= most
    bound = (3 + 2 * log2(2 * (levels**2 + n) / most)) * most + 32
    assert message.num_bits.double().mean() <= bound + elias.HEADER_BITS


@pytest.mark.parametrize("root", [10, 50, 200])
def test_qsgd_with_root_n_levels(root: int) -> None:
    """At most 2.8 n + 32 bits (Corollary 3.3)."""
    x = torch.randn(20, root**2, generator=torch.Generator().manual_seed(1))
    message = QSGD(root).compress(x, (root**2,), [Noise(1, 0, rank) for rank in range(20)])
    assert message.num_bits.double().mean() <= 2.8 * root**2 + 32 + elias.HEADER_BITS


def test_elias_code() -> None:
    """Code words are those of Elias 1975; vectors of levels survive encoding and decoding."""
    words = {1: "0", 2: "100", 3: "110", 4: "101000", 8: "1110000", 16: "10100100000", 100: "1011011001000"}
    for n, word in words.items():
        bits = np.zeros(len(word), np.uint8)
        assert elias.length(n) == elias._put(n, bits, 0) == len(word)
        assert "".join(map(str, bits)) == word
        assert elias._take(bits, 0) == (n, len(word))
    rng = np.random.default_rng(2)
    for density in (0.0, 0.001, 0.1, 1.0):
        levels = (rng.integers(-3000, 3001, 70_000) * (rng.random(70_000) < density)).astype(np.int16)
        payload, out = elias.encode(levels), np.full_like(levels, 9)
        elias.decode(payload, out)
        assert np.array_equal(out, levels)
        assert 0 <= 8 * len(payload) - elias.num_bits(levels) < 8


@pytest.mark.parametrize("compressor", [GSpar(1.0), GSpar(1.0, 0), UniSp(1.0), RandomK(1.0)], ids=str)
def test_full_density_is_dense(compressor: Compressor) -> None:
    for x in inputs(SEGMENTS).values():
        assert torch.equal(compressor.compress(x, SEGMENTS, [Noise(0, 0, rank) for rank in range(3)]).dense(), x)
    recipe = next(r for r in RECIPES.values() if type(r.compressor) is type(compressor))
    torch.testing.assert_close(train(replace(recipe, compressor=compressor)).weights, train("sgd").weights)


@pytest.mark.parametrize(
    "compressor", [GSpar(0.01), GSparClosed(0.3), QSGD(4), QSGD(1, "max"), TernGrad(clip=None)], ids=str
)
def test_nothing_and_one_entry_are_sent_as_they_are(compressor: Compressor) -> None:
    noise = [Noise(0, 0, rank) for rank in range(3)]
    x = inputs((400,))
    assert not compressor.compress(x["zeros"], (400,), noise).dense().any()
    one = compressor.compress(x["one-hot"], (400,), noise)
    if not isinstance(compressor, GSparClosed):
        torch.testing.assert_close(one.dense(), x["one-hot"])
    else:  # it uses its allowed variance: sends 1 + ε times the entry, with probability 1/(1 + ε)
        assert set(one.dense().unique().tolist()) <= {-3.25, 0.0}


def test_terngrad_agrees_on_a_scale() -> None:
    """All workers use the largest offered scale, at the cost of one float per tensor in each direction."""
    recipe = replace(RECIPES["terngrad"], downlink=None)
    shared, own = train(recipe, rounds=10), train(replace(recipe, compressor=TernGrad(shared=False)), rounds=10)
    assert not torch.equal(shared.weights, own.weights)
    offer = 4 * 32  # one float for each of four tensors
    assert shared.strategy.cohort.workers.offer_bits == offer
    assert own.strategy.cohort.workers.offer_bits == 0
    assert shared.ledger["downlink_bits"] - own.ledger["downlink_bits"] == 10 * offer
    assert shared.ledger["uplink_bits_paper"] - own.ledger["uplink_bits_paper"] == 10 * 4 * offer
    assert shared.ledger["traffic"]["agreement_bits"] == 10 * offer
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    own = TernGrad().offer(x, (50,))
    scales = TernGrad().compress_agreed(x, (50,), [Noise(0, 0, 0)] * 2, torch.tensor([9.0]), own).scales
    assert scales.flatten().tolist() == [9.0, 9.0]


@pytest.mark.parametrize("num_workers", [2, 3, 10])
@pytest.mark.parametrize("aggregator", [Sum(), Mean()], ids=str)
def test_an_answer_counts_multiples_of_the_scale(num_workers: int, aggregator: Aggregator) -> None:
    """Rows with one scale add up to at most 2M + 1 values in each segment, which take at most log₂(2M + 1) bits."""
    x = torch.randn(num_workers, 60_010, generator=torch.Generator().manual_seed(num_workers))
    segments, noise = (50_000, 10_010), [Noise(0, 0, rank) for rank in range(num_workers)]
    own = TernGrad().offer(x, segments)
    sent = TernGrad().compress_agreed(x, segments, noise, own.amax(dim=0), own)
    total = aggregator.aggregate(sent, None, noise[0])
    rounding = 1e-6 * float(total.abs().max())
    share = aggregator.weight(num_workers)
    torch.testing.assert_close(total, sent.dense().sum(dim=0) * share, rtol=1e-6, atol=rounding)
    answer = Shortest().compress(total[None], segments, noise[:1])
    assert all(len(part.unique()) <= 2 * num_workers + 1 for part in total.split(segments))
    assert int(answer.num_bits) <= 60_010 * log2(2 * num_workers + 1)
    apart = replace(sent, scales=sent.scales.clone().index_put_((torch.tensor(0), torch.tensor(1)), torch.tensor(0.7)))
    pieces = apart.cut([0, 49_984, 50_048, 60_010])  # which add up to the bits of the whole, though one scale differs
    assert torch.equal(torch.cat([piece.sum() for piece in pieces]), apart.sum())
    decoded = Shortest().blank(1, segments, total).decode([answer.encode(0)])
    assert torch.equal(decoded.dense()[0], total)


@pytest.mark.parametrize("name", RECIPES)
def test_a_broken_gradient_names_its_worker(name: str) -> None:
    data = toy_data()
    data.tensors[0][4 * 4 * 5 + 4 * 1] = torch.nan  # round 5, worker 1
    with pytest.raises(NonFiniteError, match="round 5: worker 1: "):
        train(name, Toy, data)


@pytest.mark.parametrize("largest", [1.0, 1.7, 30.0])
def test_an_agreed_scale_loses_nothing_on_average(largest: float) -> None:
    """Unbiased within five deviations, at the worker's own scale and larger ones; clipping uses its own bound."""
    x = torch.randn(400, generator=torch.Generator().manual_seed(7))
    for clip in (None, 1.5):
        compressor = TernGrad(clip)
        own = float(compressor.offer(x[None], (400,)))
        rows, noise = x.expand(NUM_DRAWS, -1).contiguous(), [Noise(0, 0, rank) for rank in range(NUM_DRAWS)]
        offer = compressor.offer(rows, (400,))
        sent = compressor.compress_agreed(rows, (400,), noise, torch.tensor([largest * own]), offer).dense().double()
        along = (sent - x.clamp(-own, own).double()) @ x.double()
        assert abs(float(along.mean())) < 5 * float(along.std()) / sqrt(NUM_DRAWS)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("factor", [-1.0, -8.0])  # powers of two scale floats of any precision exactly
def test_a_liar_sends_a_multiple_of_what_it_would_have(name: str, factor: float) -> None:
    """It sends a multiple of the honest message if the compressor scales with its input; of signs, the flipped ones."""
    compressor, x = RECIPES[name].compressor, torch.randn(1, 346, generator=torch.Generator().manual_seed(3))
    lie, noise = Scale(num_byzantine=1, factor=factor), [Noise(0, 0, 0)]
    honest = compressor.compress(x, SEGMENTS, noise).dense()
    lied = lie.corrupt(honest if compressor.repeats else x, noise[0])
    sent = compressor.compress(lied, SEGMENTS, noise).dense()
    scales = float(sent.abs().max()) > 1.5 * float(honest.abs().max()) or factor == -1
    torch.testing.assert_close(sent, honest * (factor if scales else -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "compressor", [c for c in COMPRESSORS.values() if c.variance(SEGMENTS) or not c.repeats], ids=str
)
def test_other_tensors_go_the_same_way(compressor: Compressor) -> None:
    """float64 takes the path of accelerators: it keeps the same entries, and its bytes decode to them."""
    x, noise = inputs(SEGMENTS)["normal"], [Noise(0, 0, rank) for rank in range(3)]
    single, double = compressor.compress(x, SEGMENTS, noise), compressor.compress(x.double(), SEGMENTS, noise)
    torch.testing.assert_close(double.dense().float(), single.dense(), rtol=1e-5, atol=1e-6)
    decoded = compressor.blank(1, SEGMENTS, x.double()).decode([double.encode(row) for row in range(3)])
    assert torch.equal(decoded.dense(), double.dense())


@pytest.mark.parametrize("kind", ["l2", "max"])
def test_norms(kind: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled and plain norms agree; a non-finite entry makes its bucket's norm non-finite."""
    sizes = (5_000, 3, 0)
    for x in inputs((5_003,)).values():
        compiled, of_segments = norms(x[0], 512, kind), norms_of_segments(x[0], sizes, kind)
        means = mean_magnitudes(x[0], sizes[:2])
        with monkeypatch.context() as patched:
            patched.setattr("bench.kernels.norms.is_compiled", lambda x: False)
            torch.testing.assert_close(norms(x[0], 512, kind), compiled, rtol=1e-6, atol=0)
            torch.testing.assert_close(norms_of_segments(x[0], sizes, kind), of_segments, rtol=1e-6, atol=0)
            torch.testing.assert_close(mean_magnitudes(x[0], sizes[:2]), means, rtol=1e-5, atol=1e-44)
    for bad, patched in itertools.product((torch.nan, torch.inf), (False, True)):
        x = torch.ones(1000)
        x[700] = bad
        assert norms(x, 512, kind).isfinite().tolist() == [True, False]
        if patched:
            monkeypatch.setattr("bench.kernels.norms.is_compiled", lambda x: False)
        assert norms_of_segments(x, (512, 0, 488), kind).isfinite().tolist() == [True, True, False]


def test_threads_choose_as_gspar_does() -> None:
    for x in inputs((256,)).values():
        for density in (0.01, 0.1, 0.9):
            row = x[0]
            expected = GSpar(density).scale(tail_of(row, torch.inf), partial(tail_of, row), 256)
            assert _scale(row.numpy(), density, 2) == pytest.approx(expected, rel=1e-5, abs=1e-45)
