"""Claims are decided by their rules: on made-up runs all verdicts occur, and the committed page is what they give."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.findings.claim import Claim, Finding
from bench.findings.claims import Page, read_claims
from bench.findings.experiments import Experiment
from bench.runs.columns import BY_WORKER, COLUMNS
from bench.runs.results import RunFolder
from bench.suite.scripts.claims import main

RESULTS = Path(__file__).parents[3] / "results"
TOY = {"claim": "a claim", "where": "Table I", "experiment": "toy", "of": "uploads"}


def make_runs(folder: Path, label: str, uploads: dict[int, float | None], recipe: str = "sgd") -> None:
    """A run for each seed, with so many uploads in round 100, at which accuracy rises to 90 %; None: it diverges."""
    target = {"metric": "test_accuracy", "value": 0.8}
    for seed, number in uploads.items():
        run = RunFolder(folder / label / f"seed={seed}")
        run.write_config({"algorithm": {"name": recipe}, "target": target, "seed": seed})
        row = {**dict.fromkeys(COLUMNS, 1), **{name: [0, 3] for name in BY_WORKER}, "suboptimality": None}
        rows = [row | {"round": 100, "uploads": number, "test_accuracy": 0.9}]
        rows.append(rows[0] | {"round": 200, "uploads": 2000, "test_accuracy": 0.95})
        facts = {"diverged": "round 3"} if number is None else {}
        run.write_history([] if facts else rows)
        run.write_summary([] if facts else rows, target, "python", **facts)


def found(results: Path, **rule: Any) -> Finding:
    return Claim(**{**TOY, **rule}).finding(Experiment.read("toy", results))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Pairs whose ratio is near a half, though uploads differ between seeds; others that lack a seed or its number."""
    make_runs(tmp_path / "toy", "dense", {1: 100, 2: 400, 3: 1600})
    make_runs(tmp_path / "toy", "lazy", {1: 49, 2: 204, 3: 800})
    make_runs(tmp_path / "toy", "two", {2: 200, 3: 800})
    make_runs(tmp_path / "toy", "wild", {1: 50, 2: 200, 3: None})
    make_runs(tmp_path / "toy", "tuned,lr=1", {1: 90, 2: 90, 3: 90})
    make_runs(tmp_path / "toy", "tuned,lr=2", {1: 30, 2: 30, 3: 30})
    return tmp_path


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ({"over": "dense", "below": 0.6}, "holds"),
        ({"over": "dense", "above": 0.4, "below": 0.6}, "holds"),
        ({"over": "dense", "above": 0.6}, "does not hold"),
        ({"over": "dense", "below": 0.4}, "does not hold"),
        ({"over": "dense", "below": 0.5}, "undecided"),
        ({"over": "two", "below": 1.1}, "undecided"),
        ({"over": "wild", "below": 1.1}, "undecided"),
        ({"over": "dense", "target": 0.92, "above": 0.99, "below": 1.01}, "holds"),
        ({"minus": "dense", "below": 0}, "undecided"),
        ({"above": 0, "below": 2000}, "undecided"),
        ({"over": 1000, "below": 1e9}, "holds"),
        ({"of": "test_accuracy", "minus": "dense", "above": -1e-9, "below": 1e-9}, "holds"),
        ({"of": "test_accuracy", "at": "end", "above": 94.9, "below": 95.1}, "holds"),
        ({"of": "diverged", "arm": "lazy", "at": "end", "above": 0.5}, "does not hold"),
    ],
)
def test_verdicts(rule: dict[str, Any], verdict: str, toy: Path) -> None:
    """An interval inside the bounds, outside or across one; too few seeds in common; a seed without a number."""
    assert found(toy, **{"arm": "lazy", "at": "target", **rule}).verdict == verdict


def test_the_interval_is_that_of_pairs(toy: Path) -> None:
    """The geometric mean of ratios, whatever uploads differ between seeds; the mean of differences."""
    ratio = found(toy, arm="lazy", over="dense", at="target", below=1)
    assert ratio.value == pytest.approx((0.49 * 0.51 * 0.5) ** (1 / 3))
    low, high = ratio.interval or (0, 0)
    assert 0.47 < low < 0.49
    assert 0.51 < high < 0.53
    difference = found(toy, arm="lazy", minus="dense", at="target", below=0)
    assert difference.value == pytest.approx(-(51 + 196 + 800) / 3)
    assert difference.sample.interval == difference.interval


def test_what_a_label_leaves_out_is_what_does_best(toy: Path) -> None:
    finding = found(toy, arm="tuned", over="dense", at="target", below=1)
    assert finding.labels == ("tuned,lr=2", "dense")


def write(folder: Path, *rules: dict[str, Any]) -> None:
    claims = [TOY | {"arm": "lazy", "at": "target", "below": 1} | rule for rule in rules]
    (folder / "claims.yaml").write_text(yaml.safe_dump({"A paper": {"source": "A, B", "claims": claims}}), "utf-8")


def decide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["claims.py", "--results", str(folder)])
    main()


def test_the_page(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verdict, the rule in words, and commands for runs that are missing."""
    write(
        toy,
        {"over": "dense"},
        {"over": "dense", "below": 0.25},
        {"over": "two"},
        {"experiment": "sasg_cifar100", "arm": "sasg", "over": "sgd"},
        {"experiment": "resnet20_cifar100", "arm": "sasg", "over": "sgd"},
    )
    decide(toy, monkeypatch)
    page = (toy / "CLAIMS.md").read_text("utf-8")
    assert "Of 5 claims 1 hold, 1 do not hold, and 3 are undecided." in page
    assert "| toy | `uploads` at the target of lazy ÷ dense < 1 | 0.5 (0.476 to 0.525) | 3 | **holds** |" in page
    assert "| `uploads` at the target of sasg ÷ sgd < 1 | – | not run | **undecided** |" in page
    assert "- 3: `python scripts/matrix.py experiment=toy 'matrix.seed=[1,19,31]'`" in page
    assert "- 4: `python scripts/matrix.py experiment=sasg_cifar100`" in page
    assert "- 5: `python scripts/matrix.py experiment=resnet20_cifar100 'matrix.seed=[1,19,31]'`" in page


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"experiment": "toys"}, "A paper, claim 2: experiment: 'toys'; "),
        ({"arm": "sagd"}, "A paper, claim 2: arm: 'sagd'; toy has dense, lazy, "),
        ({"over": "sagd"}, "A paper, claim 2: arm: 'sagd'; toy has dense, lazy, "),
        ({"experiment": "sasg_cifar100", "arm": "sagd"}, "arm: 'sagd'; sasg_cifar100 has sgd, sparse, lasg, sasg"),
        ({"of": "upload"}, "A paper, claims, claim 2: of: 'upload'; one of round, "),
        ({"of": "suboptimality"}, "of: 'suboptimality'; "),
        ({"near": 1}, "A paper, claims, claim 2, near: 1; Unexpected keyword argument"),
        ({"below": "low"}, "A paper, claims, claim 2, below: 'low'; Input should be a valid number"),
        ({"above": 2}, "above: 2.0, below: 1.0; "),
        ({"over": "dense", "minus": "two"}, "minus: 'two'; over is given, too"),
        ({"at": "start"}, "A paper, claims, claim 2, at: 'start'; Input should be 'target' or 'end'"),
        ({"over": -1}, "over: -1.0; a ratio takes numbers above 0"),
    ],
)
def test_bad_rules_are_told_in_a_line(
    rule: dict[str, Any], told: str, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(toy, {}, rule)
    with pytest.raises(SystemExit) as exit:
        decide(toy, monkeypatch)
    said = capsys.readouterr().err
    assert (exit.value.code, said.count("\n")) == (2, 1)
    assert told in said
    assert not (toy / "CLAIMS.md").exists()


@pytest.mark.parametrize("text", [None, "a: [", "- 1", "A paper: {source: A}", "A paper: 3"])
def test_a_bad_file_is_told_in_a_line(
    text: str | None, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (toy / "claims.yaml").write_text(text, "utf-8")
    with pytest.raises(SystemExit):
        decide(toy, monkeypatch)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {toy / 'claims.yaml'}: ")
    assert said.count("\n") == 1


def test_the_committed_page_is_what_the_rules_give() -> None:
    assert (RESULTS / "CLAIMS.md").read_text("utf-8") == Page(RESULTS, read_claims(RESULTS / "claims.yaml")).markdown()
