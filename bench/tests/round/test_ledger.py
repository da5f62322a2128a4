"""Every count of the ledger matches the committed golden traces and the papers' figures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.algorithm import Algorithm
from bench.compressors import WarmUp
from bench.errors import InputError
from bench.laws.recipes import ALONE, keeps_its_golden_trace
from bench.link import REPORT_BITS, GatherLink, NodeLink, ParallelLink, RingLink, ShardedLink, StarLink
from bench.recipes import load_recipe
from bench.round.ledger import Ledger, Report
from bench.tests.found import RECIPES
from bench.traffic import Traffic

GOLDEN = Path(__file__).parent / "golden"
RESNET18 = 11_173_962


@pytest.mark.parametrize("name", RECIPES)
def test_golden_trace(name: str, request: pytest.FixtureRequest) -> None:
    rewrite = bool(request.config.getoption("--rewrite-golden"))
    if not keeps_its_golden_trace(RECIPES[name], GOLDEN / f"{name}.json", rewrite):
        pytest.skip(f"no golden trace of {name} yet: --rewrite-golden writes it")


@pytest.mark.parametrize("law", ALONE, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", RECIPES)
def test_laws_of_recipes(law: Callable[[Algorithm], None], name: str) -> None:
    law(RECIPES[name])


def test_bits_of_sasgs_tables() -> None:
    """Uploads times bits per upload equal the paper's totals (Table II, FC-MNIST)."""
    layers = (401_408, 512, 5_120, 10)
    dense, kept = 32 * sum(layers), 32 * sum(load_recipe("sparse").compressor.counts(layers))  # pyright: ignore[reportAttributeAccessIssue]
    for uploads, bits, one in (
        (60_400, 7.87e11, dense),
        (67_400, 8.78e9, kept),
        (33_853, 4.41e11, dense),
        (22_823, 2.97e9, kept),
    ):
        assert uploads * one == pytest.approx(bits, rel=2e-3)


def crossed(
    num_bits: Sequence[int], answer_bits: int, offer_bits: int = 0, flags: bool = False, rounds: int = 1
) -> Traffic:
    """The traffic of rounds with such uploads; a worker with 0 bits skips."""
    traffic, bits = Traffic.none(len(num_bits)), np.array(num_bits)
    for _ in range(rounds):
        traffic.add(bits > 0, bits, answer_bits, offer_bits, flags)
    return traffic


def test_star_link_gives_the_papers_seconds() -> None:
    """Table III: SGD takes 327.45 s for 100 rounds of ResNet18 with ten workers."""
    traffic = crossed([RESNET18 * 32] * 10, RESNET18 * 32, rounds=100)
    assert StarLink().seconds(traffic) == pytest.approx(327.45, rel=2e-3)


def test_links() -> None:
    """By hand, at 100 bit/s and 1 s a message."""
    slow: Any = {"bandwidth_bps": 100.0, "latency_s": 1.0}
    star, parallel, ring = StarLink(**slow), ParallelLink(**slow), RingLink(**slow)
    lazy = crossed([500, 200, 0, 300], 1000)
    assert star.seconds(lazy) == (1 + 2) + (1 + 3)  # worker 0 hosts the server: a free upload
    assert parallel.seconds(lazy) == (1 + 5) + (1 + 10)
    assert parallel.seconds(crossed([0, 0], 1000)) == 1 + 10
    assert parallel.seconds(crossed([0, 0], 1000, flags=True)) == 1 + 10 + (1 + 0.01)
    assert ring.seconds(crossed([800] * 4, 800)) == 2 * 3 * (1 + 2)
    assert star.seconds(crossed([800], 800)) == ring.seconds(crossed([800], 800)) == 0
    agreed = crossed([800] * 4, 800, offer_bits=400)
    assert star.seconds(agreed) == 3 * ((1 + 8) + (1 + 4))
    assert ring.seconds(agreed) == 2 * 3 * ((1 + 2) + (1 + 1))
    report = 3 * REPORT_BITS / 100
    assert GatherLink(**slow).seconds(lazy) == pytest.approx((1 + report) + (1 + 3 * 5))
    headers = 3 * 64 * (4 + 3 + 4) / 100  # sizes ahead of pieces, headers of answers
    assert ShardedLink(**slow).seconds(lazy) == pytest.approx(
        (1 + report) + (1 + 3 * 5 / 4) + (1 + 3 * 10 / 4) + headers
    )


@pytest.mark.parametrize("kind", [ShardedLink, GatherLink, RingLink, StarLink])
def test_machines_share_their_link(kind: type[NodeLink]) -> None:
    """One worker a machine is no machine at all, whatever is in it; all workers on one use its inner link alone."""
    traffic = crossed([8_000_000] * 8, 8_000_000)
    plain = kind(1e9, 1e-4)
    assert kind(1e9, 1e-4, 1, 1e12).seconds(traffic) == pytest.approx(plain.seconds(traffic))
    assert kind(1e9, 1e-4, 8, 1e9).seconds(traffic) == pytest.approx(plain.seconds(traffic))
    assert kind(1e9, 1e-4, 8, 1e10).seconds(traffic) < plain.seconds(traffic)
    if kind in (ShardedLink, GatherLink):  # each of four workers sends to four outside, over one link: 16 instead of 7
        assert kind(1e9, 0, 4, 1e12).seconds(traffic) == pytest.approx(16 / 7 * kind(1e9, 0).seconds(traffic))
    with pytest.raises(InputError, match="intra_bandwidth_bps=None with workers_per_node=4"):
        kind(workers_per_node=4)
    with pytest.raises(InputError, match="workers_per_node: 0"):
        kind(workers_per_node=0)


def test_what_a_report_takes_is_modelled() -> None:
    assert Report.of_nothing(torch.zeros(1)).pack().nbytes * 8 == REPORT_BITS


def test_links_refuse_what_they_cannot_carry() -> None:
    RingLink().refuse(RECIPES["sgd"])
    for name in ("sparse", "lasg", "sasg"):
        with pytest.raises(InputError, match="ring"):
            RingLink().refuse(RECIPES[name])
    for recipe in RECIPES.values():
        cuttable = recipe.adds_up or recipe.compressor.blank(1, (128,), torch.zeros(128)).cuttable
        if recipe.downlink_feedback is None and cuttable:
            ShardedLink().refuse(recipe)
    with pytest.raises(InputError, match="sharded; stc cannot be cut"):
        ShardedLink().refuse(RECIPES["stc"])
    with pytest.raises(InputError, match=r"sharded; .* cannot be cut"):  # once its warm-up is over
        ShardedLink().refuse(replace(RECIPES["sparse"], compressor=WarmUp(RECIPES["stc"].compressor, 2)))
    for kind in (StarLink, ParallelLink, RingLink):
        with pytest.raises(InputError, match="bandwidth_bps=0"):
            kind(bandwidth_bps=0)


def test_reports_survive_the_wire() -> None:
    """Counts up to 2^53 are unpacked exactly."""
    counts = np.array([0, 2**53 - 1])
    flags = np.array([True, False])
    lengths = np.array([0.5, np.inf])
    integers, floats = [counts] * 4, [lengths] * 3
    report = Report._make(
        [flags, *integers, ~flags, flags, ~flags, np.array([0, 3]), *floats, lengths * np.nan, lengths, lengths]
    )
    back = Report.unpack(report.pack())
    assert all(np.array_equal(a, b, equal_nan=a.dtype == float) for a, b in zip(back, report, strict=True))
    assert [a.dtype for a in back] == [b.dtype for b in report]


def test_a_ledger_reads_back() -> None:
    ledger, other = Ledger(rounds=3, uplink_bits=10**17, traffic=crossed([3, 0], 5)), Ledger()
    other.load_state_dict(ledger.state_dict())
    assert other == ledger


def test_a_ledger_of_an_older_version_goes_on_without_traffic() -> None:
    ledger = Ledger(rounds=3)
    state = {name: value for name, value in ledger.state_dict().items() if name != "traffic"}
    resumed = Ledger(traffic=crossed([3], 5))
    resumed.load_state_dict(state | {"modelled_s": 0.5})
    assert resumed == ledger
