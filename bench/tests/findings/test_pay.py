"""Prices of rounds agree with what rounds cost, and verdicts with the seconds that they are given."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.collectives.simulated import SimulatedWorld
from bench.errors import InputError
from bench.findings.dashboard import Store, page
from bench.findings.dashboard.data import LINKS
from bench.findings.experiments import Experiment
from bench.findings.pay import (
    Network,
    Step,
    break_even_bps,
    compressed_step,
    dense_steps,
    of_round,
    on,
    quickest,
    verdict,
)
from bench.findings.prices import measure_prices
from bench.findings.race import Finish, _row, race
from bench.findings.sample import Sample
from bench.findings.subject import Subject, make_subject
from bench.findings.tables import table
from bench.findings.view import View, ViewedRun
from bench.findings.work import Work, measure
from bench.gradients.engines.loop import DenseGradients
from bench.link import GatherLink, ShardedLink
from bench.round.cohort import Cohort
from bench.suite.models.mlp import mlp
from bench.suite.scripts.pay import pay
from bench.suite.scripts.train import train
from bench.suite.scripts.units import bandwidth_bps, seconds
from bench.tests.configs import composed
from bench.tests.findings.browser import CHROMIUM, browser, opened
from bench.tests.found import RECIPES, STEPPING
from bench.traffic import Traffic

M = 4
RESULTS = Path(__file__).parents[3] / "results"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
NETWORK = Network(workers=M, bandwidth_bps=1e8, latency_s=5e-5, step_s=3e-3, overlap=0.7)


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(1)  # how many entries are sent may depend on them
    return make_subject(mlp(784, 32), None, "cross_entropy", 8)


@pytest.mark.parametrize("name", STEPPING)
def test_a_priced_round_is_a_round(name: str, subject: Subject) -> None:
    """What is priced is what the ledger counts for the same gradients, and the collectives are those that carry it."""
    recipe = RECIPES[name].settled
    gradients = torch.stack([subject.gradient(number) for number in range(M)])
    work = measure(recipe, gradients, subject.layout, M)
    assert ("ring" in work.seconds) == recipe.adds_up
    assert "gather" in work.seconds
    assert all(took > 0 for took in work.seconds.values())
    cohort = Cohort(recipe, SimulatedWorld(M), subject.layout)
    rows = DenseGradients(torch.ones(M), gradients)
    cohort.round(
        subject.layout.vector, rows, lambda rows, at: DenseGradients(torch.ones(len(rows)), gradients[rows]), 0.01, 0
    )
    traffic = cohort.ledger.traffic
    assert traffic is not None
    assert work.offer_bits == traffic.agreement_bits
    assert work.upload_bits == pytest.approx(traffic.longest_upload_bits, rel=0.1)  # errors are kept in between
    assert work.answer_bits == pytest.approx(traffic.answer_bits, rel=0.2)


def test_a_typical_round_is_a_round() -> None:
    recorded = Traffic.none(M)
    recorded.add(torch.ones(M, dtype=torch.bool).numpy(), torch.full((M,), 800).numpy(), 700, 32, True)
    assert of_round(M, 800, 700, 32, flags=True) == recorded
    rare = of_round(M, 800, 700, skips=0.5)
    assert rare.worker_bits == [400] * M
    assert rare.upload_rounds == 1 - 0.5**M


def test_dense_gradients_take_the_quicker_all_reduce() -> None:
    """With many workers a ring waits for each of them twice; recipes need not, so neither need these."""
    rounding = {"fp32": 0.0, "fp16": 0.0, "bf16": 0.0}
    for workers in (2, 8, 1000):
        network = replace(NETWORK, workers=workers)
        ring_s = network.link("ring").seconds(of_round(workers, 32e6, 0))
        step = dense_steps(network, 1_000_000, rounding)[0]
        assert step.uplink_s + step.answer_s <= ring_s
        assert step.uplink_s + step.answer_s >= 2 * (workers - 1) / workers * 32e6 / network.bandwidth_bps


def test_breaking_even() -> None:
    """At that bandwidth both take as long; a recipe that sends as much never pays, one that is free always does."""
    sparse = Work(10_000, 0, 20_000, {"gather": 2e-3, "sharded": 3e-3})
    rounding = {"fp32": 0.0, "fp16": 1e-4, "bf16": 1e-4}

    def dense_s(bps: float) -> float:
        return quickest(dense_steps(on(NETWORK, bps), 400_000, rounding)).total_s

    def sparse_s(bps: float) -> float:
        return compressed_step(RECIPES["sparse"], sparse, on(NETWORK, bps)).total_s

    found = break_even_bps(sparse_s, dense_s)
    assert found is not None
    least, even = found
    assert least == 0
    assert sparse_s(even) == pytest.approx(dense_s(even), rel=1e-6)
    assert sparse_s(even / 2) < dense_s(even / 2)
    assert break_even_bps(dense_s, dense_s) is None
    assert break_even_bps(lambda bps: 0.0, dense_s) == (0, math.inf)
    between = break_even_bps(lambda bps: 0.0 if 1e7 < bps < 1e9 else 1e3, lambda bps: 1.0)
    assert between == (pytest.approx(1e7, rel=1e-6), pytest.approx(1e9, rel=1e-6))


def test_overlap_hides_what_can_travel_early() -> None:
    """A dense sum, and a rounded one; a lazy rule takes a second pass and nothing hides."""
    work = Work(800_000, 0, 800_000, {"ring": 0.0, "sharded": 0.0})
    sgd = compressed_step(RECIPES["sgd"], work, replace(NETWORK, overlap=1.0))
    assert sgd.hidden_s == NETWORK.step_s
    lasg = compressed_step(RECIPES["lasg"], Work(800_000, 0, 800_000, {"sharded": 0.0}), replace(NETWORK, overlap=1.0))
    assert (lasg.hidden_s, lasg.compute_s) == (0, 2 * NETWORK.step_s)
    fast = replace(NETWORK, bandwidth_bps=1e12, overlap=1.0)
    assert "Nothing pays: DDP hides all" in verdict(
        [sgd], dense_steps(fast, 1000, dict.fromkeys(("fp32", "fp16", "bf16"), 0.0))
    )
    slow = Step("sparse", "gather", 1e-3, 0, 9, 0)
    assert "Nothing pays: sparse" in verdict([slow], [Step("fp16", "ring", 1e-3, 0, 1, 0)])
    assert "sparse pays if it needs fewer than" in verdict(
        [replace(slow, uplink_s=0.1)], [Step("fp16", "ring", 1e-3, 0, 1, 0)]
    )


def test_prices_of_other_numbers_of_workers(subject: Subject) -> None:
    prices = measure_prices({name: RECIPES[name] for name in ("sgd", "sparse", "half")}, subject, 2, True, list)
    assert set(prices.works) == {"sparse", "half"}
    sparse = [prices.work("sparse", size).answer_bits for size in (2, 3, 4, 6, 8, 16, 10_000)]
    assert sparse == sorted(sparse)
    assert sparse[-1] == 32 * prices.dim
    for recipe in prices.works:
        for collective in prices.work(recipe, 2).seconds:
            took = [prices.work(recipe, size).seconds[collective] for size in (16, 32, 10_000)]
            assert 0 < took[0] <= took[1] <= took[2], "noise must not make it free"
    assert prices.work("half", 64).upload_bits == 16 * prices.dim
    assert "half" in prices.table(NETWORK, {}, "toy")


@pytest.mark.parametrize(
    ("text", "value"), [("10Gbit", 1e10), ("1.25GB/s", 1e10), ("100 Mbps", 1e8), ("1e3kbit/s", 1e6), ("5Byte", 40)]
)
def test_bandwidths(text: str, value: float) -> None:
    assert bandwidth_bps("bandwidth", text) == value


@pytest.mark.parametrize(("text", "value"), [("50us", 5e-5), ("350ms", 0.35), ("1s", 1), ("0", 0), ("2e3 ns", 2e-6)])
def test_times(text: str, value: float) -> None:
    assert seconds("latency", text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bandwidth": "10"}, "bandwidth: '10'; a unit is needed"),
        ({"bandwidth": "10 gb"}, "the unit 'gb' is unknown"),
        ({"bandwidth": "0Gbit"}, "bandwidth: '0Gbit'; above 0"),
        ({"bandwidth": "-1Gbit"}, "bandwidth: '-1Gbit'; above 0"),
        ({"bandwidth": "fast"}, "bandwidth: 'fast'; a number"),
        ({}, "bandwidth: not given"),
        ({"bandwidth": "1Gbit", "latency": "50"}, "latency: '50'; a unit is needed"),
        ({"bandwidth": "1Gbit", "latency": "-5us"}, "latency: '-5us'; at least 0"),
        ({"bandwidth": "1Gbit", "step_ms": "3Gbit"}, "step_ms: '3Gbit'; the unit 'Gbit' is unknown"),
        ({"bandwidth": "1Gbit", "overlap": "1.5"}, "overlap: '1.5'; a share between 0 and 1"),
        ({"bandwidth": "1Gbit", "workers": "1"}, "workers: 1; from 2 to"),
        ({"bandwidth": "1Gbit", "workers": "2.5"}, "workers: '2.5'; a whole number"),
        ({"bandwidth": "1Gbit", "skips": "2"}, "skips: '2'; a share between 0 and 1"),
        ({"bandwidth": "1Gbit", "workers_per_node": "2"}, "intra_bandwidth_bps=None"),
        ({"bandwidth": "1Gbit", "model": "torchvision.models.resnet51"}, "model: 'torchvision.models.resnet51'"),
        ({"bandwidth": "1Gbit", "model": "torch.nn.Linear"}, "model: 'torch.nn.Linear'; it cannot be built"),
        ({"bandwidth": "1Gbit", "model": "os.getcwd"}, "a torch.nn.Module is needed"),
        ({"bandwidth": "1Gbit", "input": "3x224y"}, "input: '3x224y'; sizes"),
        ({"bandwidth": "1Gbit", "input": "3x5x5"}, "the model does not take 3x5x5"),
        ({"bandwidth": "1Gbit", "loss": "nothing.here"}, "loss: 'nothing.here'"),
        ({"bandwidth": "1Gbit", "recipes": "sagd"}, "recipes: 'sagd'"),
        ({"bandwidth": "1Gbit", "bandwith": "1"}, "bandwith: '1'; nothing reads it"),
        ({"bandwidth": "1Gbit", "step_ms": "measure"}, "step_ms: measure; input= is needed with it"),
        ({"bandwidth": "1Gbit", "experiment": "none"}, "model, experiment: one of them"),
    ],
)  # fmt: skip
def test_bad_input_of_pay(given: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        pay({"model": "mlp", "step_ms": "3", "recipes": "sparse", **given}, False, tmp_path)


def test_recipes_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a file, or by their name where the search path leads to them; and any network whose inputs are numbers."""
    (tmp_path / "algorithm").mkdir()
    file = tmp_path / "algorithm" / "mine.yaml"
    file.write_text(
        "_target_: bench.Algorithm\nname: mine\ncompressor: {_target_: bench.compressors.Sign}\n"
        "feedback: {_target_: bench.feedback.NoFeedback}\nrule: {_target_: bench.rules.Always}\n"
        "aggregator: {_target_: bench.aggregators.Mean}\n"
    )
    monkeypatch.setenv("BITBUDGET_SEARCHPATH", str(tmp_path))
    linear = {"model": "torch.nn.Linear", "model.in_features": "100", "model.out_features": "10", "input": "100"}
    for mine in ("mine", str(file)):
        pay(
            {**linear, "step_ms": "3", "recipes": f"sparse,{mine}", "bandwidth": "1Gbit", "workers": "20"},
            False,
            tmp_path,
        )
        assert "\nmine " in capsys.readouterr().out
    with pytest.raises(InputError, match="recipes: 'mine' is given twice"):
        pay({**linear, "step_ms": "3", "recipes": f"mine,{file}", "bandwidth": "1Gbit"}, False, tmp_path)
    file.write_text("- 1")
    with pytest.raises(InputError, match=r"mine\.yaml: no recipe"):
        pay({**linear, "step_ms": "3", "recipes": "mine", "bandwidth": "1Gbit"}, False, tmp_path)


def test_a_map_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pay({"model": "mlp", "step_ms": "3", "recipes": "sparse,signsgd_mv", "bandwidth": "1Gbit"}, True, tmp_path)
    said = capsys.readouterr().out
    assert "pays at" in said
    for suffix in ("png", "pdf"):
        assert (tmp_path / "mlp" / f"figure.{suffix}").stat().st_size > 1000


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A results folder with an experiment of three arms, one of which does not reach its target."""
    results = tmp_path_factory.mktemp("results")
    shared = ["name=toy", "+model.num_hidden=8", "++trainer.max_steps=60", "trainer.val_check_interval=20",
              "logger=csv", "target.value=0.3", f"results_dir={results}", f"data_dir={data_dir}"]  # fmt: skip
    for arm in (
        ["algorithm=sgd", "optimizer.lr=0.1"],
        ["algorithm=sasg", "optimizer.lr=0.1"],
        ["algorithm=sparse", "label=never", "optimizer.lr=1e-9"],
    ):
        train(composed([*arm, *shared]), arm)
    return results


@pytest.mark.parametrize("name", ["pretraining_small_tuned", "showdown_tuned"])
def test_as_many_samples_take_as_long(name: str) -> None:
    """Whether a round takes one batch of the experiment's, or a larger one in parts: on a network that costs nothing,
    seconds are those of data passes."""
    view = View(GatherLink(bandwidth_bps=1e30, latency_s=1e-30), step_ms=5)
    experiment = Experiment.read(name, RESULTS, view)
    runs = [run for arm in experiment.complete for run in arm.runs if not run.algorithm.rule.second_pass]
    ends = [run.history()[-1] for run in runs]
    assert len({round(row["modelled_s"] / row["data_passes"], 6) for row in ends}) == 1


def test_a_target_that_is_asked_for_is_one_of_costs_at_the_end() -> None:
    experiment = Experiment.read("pretraining_small_tuned", RESULTS, View(target=2.55))
    rounds = {row["recipe"]: row["round"] for row in table(experiment).rows}
    assert rounds["adamw"] == Sample((120, 120, 120), 3, "missed", ("seed=1", "seed=19", "seed=31"))


def test_a_race(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The seconds are those of the history on that network, with steps and a worker's own work; misses are told."""
    found = race("toy", toy)
    dense, others, silent = found.finishes(replace(NETWORK, workers=10), found.subject())
    assert [finish.name for finish in dense] == ["fp32", "fp16", "bf16"]
    assert not silent
    by_name = {finish.name: finish for finish in others}
    assert by_name["never"].seconds.mean is None
    lazy = by_name["sasg"]
    assert lazy.seconds.mean is not None
    view = View({"gather": GatherLink, "sharded": ShardedLink}[lazy.collective](1e8, 5e-5), step_ms=3)
    end = ViewedRun(toy / "toy" / "sasg" / "seed=1", view).target()
    assert lazy.rounds.mean == end["round"]
    assert lazy.seconds.mean > end["modelled_s"]
    assert 0 <= found.skips(["sasg", "sgd"])["sasg"] < 1
    pay({"experiment": "toy", "bandwidth": "1Mbit", "step_ms": "3", "results_dir": str(toy)}, False, tmp_path)
    said = capsys.readouterr().out
    assert "missed" in said
    assert "Nothing pays" in said.splitlines()[-1] or "sasg" in said.splitlines()[-1]


def test_a_ratio_is_over_the_same_seeds() -> None:
    """And marked if these are not all."""
    rounds = Sample((100.0,), 2)
    dense = Finish("fp32", "ring", rounds, Sample((4.0, 8.0), 2, seeds=("seed=1", "seed=2")))
    other = Finish("sparse", "gather", rounds, Sample((2.0,), 2, seeds=("seed=2",)))
    assert _row(other, dense).endswith(" 4.00 (1 of 2 seeds)")
    assert _row(dense, dense).endswith(" 1.00")


@needs_chromium
def test_the_page_agrees(toy: Path, subject: Subject, tmp_path: Path) -> None:
    """Its script gives the seconds of histories on every link, and the steps of priced models, that Python gives."""
    prices = measure_prices(
        {name: RECIPES[name] for name in ("sparse", "terngrad", "lasg", "half")}, subject, 2, True, list
    )
    plain = prices.plain("toy")
    shown = {**Store(toy).data(), "prices": [json.loads(json.dumps(plain))]}
    (tmp_path / "page.html").write_text(page(shown))
    network = replace(NETWORK, workers=16)
    net = {"bandwidth": 1e8, "latency": 5e-5, "step": 3e-3, "overlap": 0.7}
    with browser() as chromium, opened(chromium, (tmp_path / "page.html").as_uri() + "#experiment=toy") as window:
        for arm in race("toy", toy).experiment.complete:
            for name, kind in LINKS.items():
                view = View(kind(1e8, 5e-5), step_ms=3, overlap=0.7)
                ours = [row["modelled_s"] for row in replace(arm.runs[0], view=view).history()]
                theirs = window.evaluate(
                    """([label, link, net]) => {
                        const arm = data.loaded.toy.arms.find((arm) => arm.label === label);
                        return arm.links.includes(link) ? elapsed(arm.runs[0], arm, link, net) : null;
                    }""",
                    [arm.label, name, net],
                )
                assert (theirs is None) == (None in ours), (arm.label, name)
                assert theirs is None or theirs == pytest.approx(ours, rel=1e-9), (arm.label, name)
        found = window.evaluate("net => stepsOf(data.prices[0], 16, net)", net)
        for theirs, ours in zip(found["dense"], sorted(prices.dense(network), key=_total), strict=True):
            assert (theirs["name"], theirs["total"]) == (ours.name, pytest.approx(ours.total_s))
        for theirs, ours in zip(found["others"], sorted(prices.steps(network, {}), key=_total), strict=True):
            assert (theirs["name"], theirs["collective"]) == (ours.name, ours.collective)
            assert theirs["total"] == pytest.approx(ours.total_s)
        window.select_option("#net-link", "quickest")
        assert "all-reduce" in window.inner_text("#network-table")
        assert "half" in window.inner_text("#prices-table")
        dense, other = ({"seeds": s, "times": t, "num": 2} for s, t in (([1, 2], [4, 8]), ([2], [2])))
        assert window.evaluate("([dense, other]) => sooner(dense, other)", [dense, other]) == "4.00 (1 of 2 seeds)"


def _total(step: Step) -> float:
    return step.total_s
