"""Every count of the ledger matches the committed golden traces and the papers' figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import InputError
from bench.link import REPORT_BITS, GatherLink, NodeLink, ParallelLink, RingLink, ShardedLink, StarLink
from bench.recipes import load_recipe
from bench.round.ledger import Ledger, Report
from bench.runs.columns import MEASURED
from bench.tests.found import RECIPES
from bench.tests.toys import Bilinear, Dyadic, Recorder, counted, dyadic_data, toy_data, train
from bench.traffic import Traffic

GOLDEN = Path(__file__).parent / "golden"
RESNET18 = 11_173_962


@pytest.mark.parametrize("name", RECIPES)
def test_golden_trace(name: str, request: pytest.FixtureRequest) -> None:
    """Compares the ledger after each of 24 rounds of exact arithmetic. `--rewrite-golden` writes a new trace."""
    recorder = Recorder()
    module = Bilinear if RECIPES[name].compressor.follows else Dyadic  # only Bilinear has a matrix
    train(name, module, dyadic_data(), workers=4, rounds=24, callbacks=[recorder])
    trace, file = list(map(counted, recorder.ledgers)), GOLDEN / f"{name}.json"
    if request.config.getoption("--rewrite-golden"):
        file.write_text("[\n" + ",\n".join(map(json.dumps, trace)) + "\n]\n")
    if not file.exists():
        pytest.skip(f"no golden trace of {name} yet: --rewrite-golden writes it")
    for now, then in zip(trace, json.loads(file.read_text()), strict=True):
        assert now == counted(then)


@pytest.mark.parametrize("name", RECIPES)
def test_counts_add_up(name: str) -> None:
    recorder = Recorder()
    run = train(name, rounds=40, data=toy_data(800), callbacks=[recorder])
    ledger, offer_bits = run.ledger, run.strategy.cohort.workers.offer_bits
    uploads = np.array(recorder.uploads)
    assert ledger["rounds"] == len(uploads) == 40
    assert ledger["uploads"] == uploads.sum()
    broadcast = RECIPES[name].broadcast.blank(1, (387,), torch.zeros(387))
    assert ledger["downlink"] == broadcast.kind
    if broadcast.kind in ("dense", "sign"):  # their length depends only on d
        assert ledger["downlink_bits"] == ledger["rounds"] * (int(broadcast.num_bits) + offer_bits)
    assert 0 < ledger["downlink_bits"] <= ledger["rounds"] * (387 * 32 + offer_bits)
    measured = run.strategy.ledger.state_dict()
    assert not any(np.any(measured[name]) for name in MEASURED if not name.startswith("comp"))
    rule = RECIPES[name].rule
    adaptive, looks_back = rule.adaptive, rule.second_pass
    assert ledger["control_bits"] == (ledger["rounds"] * 4 if adaptive else 0)
    if not looks_back:
        assert ledger["num_backwards"] == ledger["rounds"] * 4
    else:  # workers may skip from round 10 on unless forced to upload; to decide takes a second backward pass
        assert ledger["rounds"] * 4 < ledger["num_backwards"] <= (2 * ledger["rounds"] - 10) * 4


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


@pytest.mark.parametrize("name", RECIPES)
def test_traffic_adds_up_to_the_ledger(name: str) -> None:
    ledger = train(name, rounds=20, data=toy_data(800)).ledger
    traffic = Traffic(**ledger["traffic"])
    assert sum(traffic.worker_bits) == ledger["uplink_bits"]
    assert traffic.answer_bits + traffic.agreement_bits == ledger["downlink_bits"]
    assert traffic.flag_rounds * 4 == ledger["control_bits"]
    assert traffic.answers == ledger["rounds"]
    assert sum(traffic.worker_messages) == ledger["uploads"] * (2 if traffic.agreement_bits else 1)
    assert traffic.longest_upload_bits + traffic.agreement_bits >= ledger["uplink_bits"] / 4
    half = train(name, rounds=10, data=toy_data(800)).ledger
    assert (traffic - Traffic(**half["traffic"])).answers == 10


def test_what_a_report_takes_is_modelled() -> None:
    assert Report.of_nothing(torch.zeros(1)).pack().nbytes * 8 == REPORT_BITS


def test_links_refuse_what_they_cannot_carry() -> None:
    RingLink().refuse(RECIPES["sgd"])
    for name in ("sparse", "lasg", "sasg"):
        with pytest.raises(InputError, match="ring"):
            RingLink().refuse(RECIPES[name])
    for recipe in RECIPES.values():
        if recipe.downlink_feedback is None:
            ShardedLink().refuse(recipe)
    with pytest.raises(InputError, match="sharded; stc cannot be cut"):
        ShardedLink().refuse(RECIPES["stc"])
    for kind in (StarLink, ParallelLink, RingLink):
        with pytest.raises(InputError, match="bandwidth_bps=0"):
            kind(bandwidth_bps=0)


def test_reports_survive_the_wire() -> None:
    """Counts up to 2^53 are unpacked exactly."""
    counts = np.array([0, 2**53 - 1])
    flags = np.array([True, False])
    lengths = np.array([0.5, np.inf])
    integers, floats = [counts] * 4, [lengths] * 3
    report = Report._make([flags, *integers, ~flags, flags, ~flags, flags, *floats, lengths * np.nan, lengths, lengths])
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
