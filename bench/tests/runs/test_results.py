"""The files of a run are written whole; tables and figures report it correctly and match the committed ones."""

import csv
import json
import re
import resource
import shutil
from dataclasses import replace
from importlib import import_module
from itertools import combinations, cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.errors import InputError
from bench.findings.experiments import Arm, Experiment, read_experiments, specified
from bench.findings.figures import digest, figure
from bench.findings.look import COLORS, TITLES
from bench.findings.marks import named_lines
from bench.findings.paper import save
from bench.findings.sample import Ratio, Sample, Theirs
from bench.findings.table import Column, Table
from bench.findings.tables import BESIDE_UPLOADS, further_tables, table
from bench.findings.view import View
from bench.runs.columns import BY_WORKER, COLUMNS, MEASURED
from bench.runs.results import RunFolder
from bench.runs.targets import target_reached
from bench.runs.whole import write_whole
from bench.suite.scripts.figures import measured
from bench.suite.scripts.tables import into_page
from bench.suite.scripts.train import train
from bench.tests.configs import composed

ROOT = Path(__file__).parents[3]
ALIASES = range(ord("b"), ord("y"))  # of which each doubles what the one before it holds
COMMITTED = sorted({path.parts[-4] for path in (ROOT / "results").glob("*/*/*/summary.json")})


def row(**changes: Any) -> dict[str, Any]:
    lists, unmeasured = {name: [0, 3] for name in BY_WORKER}, dict.fromkeys(MEASURED)
    return {**dict.fromkeys(COLUMNS, 1), **lists, **unmeasured, "test_accuracy": 0.5, **changes}


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the previous file stays."""
    file = tmp_path / "history.csv"
    write_whole(file, "first")

    def full(self: Path, content: bytes) -> int:
        self.open("w").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "second")
    assert file.read_text() == "first"


def test_a_history_reads_back(tmp_path: Path) -> None:
    rows = [
        row(round=100, uplink_bits=10**9, modelled_s=0.1 + 0.2),
        row(round=200, uplink_bits=10**15, train_loss=1e-9),
    ]
    folder = RunFolder(tmp_path)
    folder.write_history(rows)
    assert folder.history() == rows


def test_the_target_is_reached_first_once() -> None:
    accuracies = {100: 0.97, 200: 0.98, 300: 0.981, 400: 0.99}
    rows = [row(round=round, test_accuracy=accuracy) for round, accuracy in accuracies.items()]
    assert target_reached(rows, "test_accuracy", 0.98)["round"] == 300  # above the target, not at it
    missed = target_reached(rows, "test_accuracy", 0.999)
    assert (missed["round"], missed["uplink_bits"], missed["value"]) == (None, None, 0.999)


def test_differing_configs_are_told_by_key(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check({"lr": 0.1})
    folder.write_config({"lr": 0.1, "data": {"batch": 10, "name": "x"}})
    folder.check({"data": {"name": "x", "batch": 10}, "lr": 0.1})
    folder.write_history([row(round=1)])
    with pytest.raises(InputError, match=r"data\.batch \(10 there, 20 now\), extra \(nothing there, 1 now\)"):
        folder.check({"lr": 0.1, "data": {"batch": 20, "name": "x"}, "extra": 1})


def make_run(path: Path, reached: int | None, value: float = 0.98) -> None:
    rows = []
    for r in (100, 200, 300):
        bits = {"uplink_bits": 3000 * r, "uplink_bits_paper": 2000 * r, "downlink_bits": 1000 * r}
        bits |= {"control_bits": 0, "total_bits": 4000 * r}
        accuracy = 0.99 if reached is not None and r >= reached else 0.9
        rows.append(row(round=r, uploads=10 * r, **bits, test_accuracy=accuracy))
    folder = RunFolder(path)
    target = {"metric": "test_accuracy", "value": value}
    folder.write_config({"algorithm": {"name": path.parent.name}, "target": target})
    folder.write_history(rows)
    folder.write_summary(rows, target, "python", downlink="dense")


def experiment(folder: Path, **spec: Any) -> Experiment:
    """Return the runs in a folder as an experiment with this specification."""
    return replace(Experiment.read(folder.name, folder.parent), spec=spec)


def test_tables(tmp_path: Path) -> None:
    """Means over the runs that reached the target, the number that missed it, no incomplete runs, ratios to sgd."""
    toy = tmp_path / "toy"
    for recipe, rounds in {"sgd": (300, 300, 300), "sparse": (100, 200, None), "lasg": (None, None, None)}.items():
        for seed, reached in enumerate(rounds):
            make_run(toy / recipe / f"seed={seed}", reached)
    RunFolder(toy / "sasg" / "seed=1").write_config({})
    target = {"metric": "test_accuracy", "value": 0.98}
    paper = {"source": "a paper", "uploads": {"sgd": 3600, "sparse": 5, "lasg": 7}}
    logs = {"source": "their repository", "seeds": [1, 2], "uploads": {"sgd": 3000}}
    made = table(experiment(toy, paper=paper, logs=logs, target=target))
    lasg, sgd, sparse = made.rows
    assert [r["recipe"] for r in made.rows] == ["lasg", "sgd", "sparse"]
    assert sparse["round"] == Sample((100, 200), 3)
    assert sgd["uploads_theirs"] == Theirs(3600, Sample((3000, 3000, 3000), 3))
    assert sparse["uplink_bits_saving"] == sparse["total_bits_saving"] == Ratio(2, 2, 3)
    assert lasg["uplink_bits_saving"] is None
    text = made.markdown()
    assert "150 ± 71 (1 of 3 missed)" in text
    assert "| lasg | 90.00 ± 0.00 | missed | missed | 7 |" in text
    assert "| 3,600 (−16.7 %, outside) | 3,000 (+0.0 %) |" in text
    assert "Authors' logs: their repository, mean over seeds 1, 2." in text
    assert "2× (2 of 3 seeds)" in text
    shown = [key for key in BESIDE_UPLOADS if key != "uplink_bits_paper_theirs"]  # which this paper does not give
    assert [column.key for column in made.short.columns] == shown
    assert "sasg" not in text
    assert "(4.50 $\\pm$ 2.12)$\\cdot 10^{5}$" in made.latex()
    assert made.latex().count("&") == 4 * (len(made.columns) - 1)
    lines = list(csv.DictReader(made.csv().splitlines()))
    assert float(lines[2]["uplink_bits_mean"]) == 450_000
    assert (lines[2]["round_n"], lines[2]["round_missed"]) == ("2", "1")
    assert lines[0]["round_mean"] == ""
    assert (lines[1]["uploads_theirs"], lines[1]["uploads_theirs_outside"]) == ("3600", "True")
    at_end = table(experiment(toy, table={"kind": "costs", "at": "end"}))
    assert at_end.rows[0]["uploads"] == Sample((3000, 3000, 3000), 3, "diverged")
    to_sparse = table(experiment(toy, table={"kind": "costs", "to": "sparse"}))
    assert {row["recipe"]: row.get("total_bits_saving") for row in to_sparse.rows}["sgd"] == Ratio(0.5, 2, 3)
    with pytest.raises(InputError, match=r"table\.kind: 'pivot'; one of costs, sweep is needed"):
        table(experiment(toy, table={"kind": "pivot"}))
    other = table(experiment(toy, paper=paper, target=target | {"value": 0.97}))
    assert not any(key.endswith("_theirs") for line in other.rows for key in line), "the paper's are of its own target"
    lower = table(replace(Experiment.read("toy", tmp_path, View(target=0.85)), spec={}))
    assert lower.rows[0]["round"] == Sample((100, 100, 100), 3)
    make_run(toy / "sgd" / "seed=0", 300, value=0.95)
    with pytest.raises(InputError, match=r"target: .*0\.98.* and .*0\.95.*; scripts/tables.py --target"):
        table(experiment(toy, paper=paper, target=target))


def test_what_was_not_run_is_told(tmp_path: Path) -> None:
    """A row for each label of the grid, with the paper's number; below, what makes the runs and how long it takes."""
    for seed in (1, 2):
        make_run(tmp_path / "toy" / "sgd" / f"seed={seed}", 100)
    make_run(tmp_path / "toy" / "other" / "seed=1", 100)
    RunFolder(tmp_path / "toy" / "sasg" / "seed=1").write_config({})
    grid, hours = {"sgd": 2, "sparse": 2, "sasg": 3}, {"sparse": 1.5, "sasg": 4}
    paper = {"source": "a paper", "uploads": {"sparse": 7}}
    target = {"metric": "test_accuracy", "value": 0.98}
    partly = replace(experiment(tmp_path / "toy", hours=hours, paper=paper, target=target), grid=grid)
    text = table(partly).markdown()
    assert "| sparse | not run |  |  | 7 |" in text
    assert [line.split()[1] for line in text.splitlines()[2:6]] == ["sgd", "sparse", "sasg", "other"]
    told = "Not run: 5 of 7 runs; python scripts/matrix.py experiment=toy makes them"
    assert f"{told}, about 15 hours of a core." in text
    assert f"{told}." in table(replace(partly, spec={})).caption
    assert "ot run" not in table(replace(partly, grid={"sgd": 2})).markdown()


def test_bad_wishes_are_told(tmp_path: Path) -> None:
    """An unknown option, a missing one, and a column that the runs do not have."""
    make_run(tmp_path / "toy" / "sgd" / "seed=1", 100)
    RunFolder(tmp_path / "toy" / "sgd" / "seed=1").write_config(
        {"algorithm": {"name": "sgd"}, "target": {"metric": "test_accuracy", "value": 0.98}}
    )
    for make, spec, said in (
        (table, {"table": {"kind": "sweep"}}, r"table\.across: not given; sweep needs it"),
        (table, {"table": {"kind": "costs", "when": 1}}, r"table\.when: 1; costs takes at"),
        (table, {"table": {"kind": "costs", "at": "ende"}}, r"table\.at: 'ende'; target or end is needed"),
        (table, {"table": {"kind": "costs", "to": "dense"}}, r"table\.to: 'dense'; one of .* is needed"),
        (table, {"table": {"kind": "sweep", "across": "lr"}}, r"table: 'lr'; a column or a setting"),
        (
            further_tables,
            {"tables": {"table": {"kind": "budgets"}}},
            "tables: table; the file of `table` has this",
        ),
        (further_tables, {"tables": {"bits": {"kind": "costs"}}}, r"tables\.bits\.kind: 'costs'; one of budgets, sec"),
        (further_tables, {"tables": {"bits": {"kind": "budgets"}}}, r"tables\.bits\.bits: not given; budgets needs it"),
        (
            further_tables,
            {"tables": {"bits": {"kind": "budgets", "bits": [2, 1]}}},
            r"bits: \[2, 1\]; a list",
        ),
        (figure, {"figure": {"kind": "curves", "x": ["round"], "rows": "lr"}}, r"figure: 'lr'; a column or a setting"),
        (figure, {"figure": {"kind": "curves", "x": ["joules"]}}, r"figure: 'joules'; a column or a setting"),
    ):
        with pytest.raises(InputError, match=said):
            make(experiment(tmp_path / "toy", **spec))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history.csv", b"round,train_loss\n1,abc\n"),
        ("history.csv", b"\xff\xfe\x00"),
        ("history.csv", b""),
        ("history.csv", b"round,train_loss\n100,1\n"),
        ("history.csv", b"round,train_loss\n300,1e6\n"),
        ("summary.json", b'{"round": 1'),
        ("history.csv", b"round,train_loss\n100,1,2\n"),
        ("history.csv", b"round,train_loss\n100\n"),
        ("summary.json", b"{}"),
        ("summary.json", b'{"round": 100, "downlink": "", "target": null}'),
        ("summary.json", b"[" * 100_000),
        ("history.csv", b"round,train_loss\n" + b"1" * 200_000 + b",2\n"),
        ("history.csv", b"round,train_loss\n1e999,1\n"),
        ("history.csv", b"round,train_loss\n,2\n300,1\n"),
        ("history.csv", b"round,train_loss\n15.5,2\n300,1\n"),
        ("history.csv", b"round,train_loss\n400,2\n300,1\n"),
        ("history.csv", b"round,uplink_bits\n-1,2\n300,3\n"),
        ("history.csv", b"round,uplink_bits\n200,20\n300,10\n"),
        ("history.csv", b"round,test_accuracy\n200,85\n300,0.9\n"),
        ("history.csv", b"round,test_accuracy\n200,inf\n300,0.9\n"),
        ("summary.json", b'{"round": 100, "downlink": 5, "target": {"metric": "test_accuracy", "value": 0.9}}'),
        ("summary.json", b'{"round": 100, "downlink": "", "target": {"metric": 3}}'),
        ("config.yaml", b"a: ["),
        ("config.yaml", b"{}"),
        ("config.yaml", b"[" * 50_000),
        (
            "config.yaml",
            b"a: &a [1, 2]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122)),
        ),
        ("config.yaml", b""),
        ("config.yaml", b"algorithm: {name: sgd}\ntarget: 7\n"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    """Also a history that ends before its run did."""
    make_run(tmp_path / "toy" / "sgd" / "seed=1", 100)
    (tmp_path / "toy" / "sgd" / "seed=1" / name).write_bytes(content)
    with pytest.raises(
        InputError,
        match=rf"{name}: (damaged|ends at|train_loss: 1000000.0 in its|unknown|missing)",
    ):
        table(read_experiments([], tmp_path)[0])


def test_runs_that_lack_a_file(tmp_path: Path) -> None:
    make_run(path := tmp_path / "toy" / "sgd" / "seed=1", 100)
    with pytest.raises(InputError, match="written under another config"):
        RunFolder(path).check({"workers": 5})
    refused = RunFolder(tmp_path / "toy" / "sasg" / "seed=1")
    refused.write_config({"workers": 7})
    refused.check({"workers": 5})  # nothing was computed under the config that is there
    (refused.path / "config.yaml").unlink()
    (path / "history.csv").unlink()
    with pytest.raises(InputError, match=r"history.csv: missing; summary.json says round 300"):
        table(read_experiments([], tmp_path)[0])
    (path / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"config.yaml: missing"):
        read_experiments(["toy"], tmp_path)
    with pytest.raises(InputError, match=r"summary.json of a run without config.yaml, which fits no config"):
        RunFolder(path).check({})


def test_any_label_is_one_cell(tmp_path: Path) -> None:
    make_run(tmp_path / "toy" / "a|b$#{~^\\" / "seed=1", 100)
    made = table(experiment(tmp_path / "toy"))
    head, _, cells, *_ = made.markdown().splitlines()
    assert cells.replace("\\|", "").count("|") == head.count("|")
    assert "a|b\\$\\#\\{\\textasciitilde \\textasciicircum \\textbackslash " in made.latex()


def test_a_table_goes_to_its_own_place(tmp_path: Path) -> None:
    """Whatever the experiment is called."""
    make_run(tmp_path / "toy" / "sgd" / "seed=1", 100)
    made = table(experiment(tmp_path / "toy"))
    (page := tmp_path / "page.md").write_text(
        "<!-- table a(b -->\n<!-- /table -->\n<!-- table axb -->\n<!-- /table -->\n"
    )
    into_page(page, "a.b", made)
    assert "sgd" not in page.read_text()
    into_page(page, "a(b", made)
    before, _, after = page.read_text().partition("<!-- table axb -->")
    assert "sgd" in before
    assert "sgd" not in after


def test_labels() -> None:
    """A setting's value may contain commas and equals signs."""
    arm = Arm("sgd,x,milestones=[1, 2],f=a=b", [])
    assert (arm.name, arm.settings) == ("sgd,x", {"milestones": "[1, 2]", "f": "a=b"})


def test_numbers_as_they_are_rounded() -> None:
    column = Column("x", "x", "power")
    shown = [Table("", [column], []).text({"x": x}, column) for x in (9.999e9, -1e-11, 0.0, 1234.0)]
    assert shown == ["1.00e10", "-1.00e-11", "0.00e0", "1.23e3"]
    factor = Column("x", "x", "factor")
    assert Table("", [factor], []).text({"x": 999.7}, factor) == "1,000×"


def test_intervals() -> None:
    """Mean ± t s/√n, and whether the paper's figure lies outside."""
    ours = Sample((1.0, 2.0, 3.0, 4.0, 5.0), 5)
    low, high = ours.interval or (0, 0)
    assert (low, high) == pytest.approx((3 - 1.963243, 3 + 1.963243))
    assert (Theirs(1.04, ours).is_outside, Theirs(1.03, ours).is_outside) == (False, True)
    assert Theirs(4.0, ours).difference == pytest.approx(-0.25)
    assert Theirs(1.0, Sample((2.0,), 1)).is_outside is None


def test_sweeps(tmp_path: Path) -> None:
    """A row per recipe and other settings, a column per value in numerical order; diverged runs are labelled."""
    for lr, accuracy in {"1.0": None, "0.03": 0.75, "0.2": 0.5}.items():
        folder = RunFolder(tmp_path / "toy" / f"sgd,data=x,lr={lr}" / "seed=1")
        folder.write_config({"algorithm": {"name": "sgd"}})
        rows = [] if accuracy is None else [row(test_accuracy=accuracy)]
        facts = {"diverged": "round 3"} if accuracy is None else {}
        folder.write_summary(rows, {"metric": "test_accuracy", "value": 0.9}, "python", **facts)
    made = table(experiment(tmp_path / "toy", table={"kind": "sweep", "across": "lr"}))
    assert [c.title for c in made.columns] == ["recipe", "lr 0.03", "lr 0.2", "lr 1"]
    assert "| sgd data=x | 75.00 | 50.00 | diverged |" in made.markdown()
    assert "test_accuracy after the last round, %" in made.caption


def test_figures(tmp_path: Path) -> None:
    """Lines are means of the histories, bands their extremes; equal data give equal bytes."""
    for recipe, reached in {"sgd": (300, 200), "sparse": (100, 300)}.items():
        for seed, first in enumerate(reached):
            folder = tmp_path / "runs" / recipe / f"seed={seed}"
            make_run(folder, first)
            RunFolder(folder).write_config({"algorithm": {"name": recipe}})
    spec = {"kind": "curves", "x": ["round", "total_bits"]}
    shown = experiment(tmp_path / "runs", figure=spec)
    rounds, bits = figure(shown).axes
    (sgd, sparse) = rounds.get_lines()
    assert sgd.get_ydata() == pytest.approx([0.9, 0.945, 0.99])
    assert sparse.get_ydata() == pytest.approx([0.945, 0.945, 0.99])
    assert bits.get_lines()[0].get_xdata() == pytest.approx([4e5, 8e5, 12e5])
    assert (sgd.get_color(), sparse.get_color()) == (COLORS["sgd"], COLORS["sparse"])
    saved = []
    for name in ("a", "b"):
        save(figure(shown), tmp_path / name, "data")
        saved.append([(tmp_path / name / f"figure.{suffix}").read_bytes() for suffix in ("png", "pdf")])
    assert saved[0] == saved[1]
    grouped = figure(
        experiment(tmp_path / "runs", figure=spec | {"groups": {"dense": ["sgd"], "both": ["sgd", "sparse"]}})
    )
    assert [axes.get_title() for axes in grouped.axes] == ["dense", "both"] * 2
    assert [len(named_lines(axes)) for axes in grouped.axes] == [1, 2] * 2
    with pytest.raises(InputError, match=r"figure\.groups\.dense: adam; one that ran is needed, of sgd, sparse"):
        figure(experiment(tmp_path / "runs", figure=spec | {"groups": {"dense": ["adam"]}}))
    make_run(tmp_path / "runs" / "sgd" / "seed=2", 100)
    RunFolder(tmp_path / "runs" / "sgd" / "seed=2").write_config({"algorithm": {"name": "sgd"}})
    middle = figure(experiment(tmp_path / "runs", figure=spec | {"center": "median"})).axes[0].get_lines()[0]
    assert middle.get_ydata() == pytest.approx([0.9, 0.99, 0.99])
    with pytest.raises(InputError, match=r"figure\.center: 'mode'; one of mean, median is needed"):
        figure(experiment(tmp_path / "runs", figure=spec | {"center": "mode"}))
    with pytest.raises(InputError, match=r"figure\.kind: 'pie'; one of curves, sweep"):
        figure(experiment(tmp_path / "runs", figure={"kind": "pie"}))


def test_figures_of_sweeps(tmp_path: Path) -> None:
    """A point per value, in order; a cross where a run diverged."""
    for workers, loss in {"9": 0.1, "1": 0.3, "16": None}.items():
        folder = RunFolder(tmp_path / "toy" / f"signsgd_mv,workers={workers}" / "seed=1")
        folder.write_config({"algorithm": {"name": "signsgd_mv"}})
        rows = [] if loss is None else [row(train_loss=loss)]
        facts = {"diverged": "round 3"} if loss is None else {}
        folder.write_summary(rows, {"metric": "test_accuracy", "value": 0.9}, "python", **facts)
    spec = {"kind": "sweep", "x": "workers", "y": ["train_loss"]}
    (axes,) = figure(experiment(tmp_path / "toy", figure=spec)).axes
    line, crosses = axes.get_lines()
    assert np.asarray(line.get_xdata()).tolist() == [1, 9, 16]
    assert np.asarray(line.get_ydata())[:2] == pytest.approx([0.3, 0.1])
    assert np.asarray(crosses.get_xdata()).tolist() == [16]


def test_sweeps_of_tuned_arms(tmp_path: Path) -> None:
    """A line has each value's best rate; lines of one colour differ in dash."""
    for name, losses in {
        "kept": {("1", "0.1"): 0.3, ("1", "1"): 0.2, ("9", "0.1"): 0.1},
        "lost": {("1", "1"): 0.5},
    }.items():
        for (workers, lr), loss in losses.items():
            folder = RunFolder(tmp_path / "toy" / f"{name},workers={workers},lr={lr}" / "seed=1")
            folder.write_config({"algorithm": {"name": "sparse_signsgd"}})
            folder.write_summary([row(train_loss=loss)], {"metric": "test_accuracy", "value": 0.9}, "python")
    spec = {"kind": "sweep", "x": "workers", "y": ["train_loss"], "best": "lr", "log": ["workers"]}
    (axes,) = figure(experiment(tmp_path / "toy", figure=spec)).axes
    kept, lost = named_lines(axes)
    assert np.asarray(kept.get_ydata()) == pytest.approx([0.2, 0.1])
    assert (kept.get_color(), axes.get_xscale()) == (lost.get_color(), "log")
    assert kept.get_linestyle() != lost.get_linestyle()


def test_no_results_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No runs, none of that name, or none complete; an incomplete experiment does not hide the others."""
    with pytest.raises(InputError, match=r"results: .* holds no run"):
        read_experiments([], tmp_path)
    RunFolder(tmp_path / "half" / "sgd" / "seed=1").write_config({})
    make_run(tmp_path / "whole" / "sgd" / "seed=1", 100)
    with pytest.raises(InputError, match=r"'none' has no run in .*; there is half, whole"):
        read_experiments(["none"], tmp_path)
    with pytest.raises(InputError, match=r"'half'; none of its runs in .* is complete"):
        read_experiments(["half"], tmp_path)
    assert [found.name for found in read_experiments([], tmp_path)] == ["whole"]
    assert "half: no run is complete yet" in capsys.readouterr().err


def test_two_experiments_of_one_name_are_told(tmp_path: Path) -> None:
    for folder in ("sasg", "copy"):
        RunFolder(tmp_path / folder / "sgd" / "seed=1").write_config({"name": "sasg"})
    with pytest.raises(InputError, match=r"name: 'sasg'; .*copy and .*sasg both hold runs of it"):
        read_experiments([], tmp_path)


def test_histories_of_other_versions(tmp_path: Path) -> None:
    """An older one lacks the columns added since; an unknown column of a newer one is named."""
    (tmp_path / "history.csv").write_text("round,uplink_bits,downlink_bits,control_bits,test_accuracy\n1,5,7,2,0.5\n")
    (old,) = RunFolder(tmp_path).history()
    assert (old["total_bits"], old["test_accuracy"], old["skips"], old["data_passes"]) == (14, 0.5, None, None)
    (tmp_path / "history.csv").write_text("round,joules\n1,2\n")
    with pytest.raises(InputError, match=r"history\.csv: unknown column joules; this version has round, epoch"):
        RunFolder(tmp_path).history()


@pytest.mark.parametrize("page", ["README.md", "results/README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text("utf-8")):
        assert target.startswith("https://") or (file.parent / target).exists(), target


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_tables_are_those_of_the_results(name: str, tmp_path: Path) -> None:
    folder = ROOT / "results" / name
    made = table(Experiment.read(name, ROOT / "results"))
    made.write(tmp_path / name)
    further = further_tables(Experiment.read(name, ROOT / "results"))
    for key, other in further.items():
        other.write(tmp_path / name, key)
    for file in (tmp_path / name).iterdir():
        assert (folder / file.name).read_text("utf-8") == file.read_text("utf-8")
    keys = [column.key for column in made.short.columns]
    for key in (key for key in keys if key.endswith("_theirs")):
        assert keys[keys.index(key) - 1] == key.removesuffix("_theirs"), "a paper's number is right of ours"
    for page in (ROOT / "README.md", ROOT / "results" / "README.md"):
        copy = tmp_path / page.name
        copy.write_text(page.read_text("utf-8"), "utf-8")
        into_page(copy, name, made)
        for key, other in further.items():
            into_page(copy, f"{name}/{key}", other)
        assert copy.read_text("utf-8") == page.read_text("utf-8")


@pytest.mark.parametrize("name", [e for e in COMMITTED if specified(e)[0].get("figure")])
def test_committed_figures_show_the_results(name: str) -> None:
    """The hash stored in the figure is that of the committed results."""
    folder = ROOT / "results" / name
    with Image.open(folder / "figure.png") as image:
        assert image.info["Source"] == digest(Experiment.read(name, ROOT / "results"))
    assert (folder / "figure.pdf").read_bytes()[:4] == b"%PDF"


def colours(file: Path) -> set[tuple[int, int, int]]:
    """Those that fill some area of a picture, but for greys."""
    with Image.open(file) as image:
        counted = image.convert("RGB").getcolors(image.width * image.height)
    pixels: Any = counted or ()
    return {pixel for number, pixel in pixels if number >= 100 and max(pixel) - min(pixel) > 20}


@pytest.mark.parametrize("name", [*measured(ROOT / "results")])
def test_committed_figures_of_what_was_measured(name: str, tmp_path: Path) -> None:
    """They are drawn from what is stored, in the colours of now; nothing else in their folder changes."""
    folder = ROOT / "results" / name
    shutil.copytree(folder, copy := tmp_path / name)
    import_module(f"bench.suite.scripts.{measured(ROOT / 'results')[name]}").redraw(copy)
    assert colours(copy / "figure.png") == colours(folder / "figure.png") != set()
    for file in (file for file in folder.iterdir() if file.is_file() and file.stem != "figure"):
        assert (copy / file.name).read_bytes() == file.read_bytes(), file.name


CURVES, SWEEPS = (
    [e for e in COMMITTED if (specified(e)[0].get("figure") or {}).get("kind") == kind] for kind in ("curves", "sweep")
)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps_mark_the_target(name: str) -> None:
    experiment = Experiment.read(name, ROOT / "results")
    target, shown = experiment.arms[0].runs[0].target(), experiment.spec["figure"].get("y", ["test_accuracy"])
    for axes, metric in zip(figure(experiment).axes, cycle(shown)):
        levels = [ys[0] for line in axes.get_lines() if len(np.unique(ys := np.asarray(line.get_ydata()))) == 1]
        assert (target["value"] in levels) == (target["metric"] == metric)


@pytest.mark.parametrize("name", CURVES)
def test_lines_of_a_panel_never_look_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lines differ in colour or dash, and in name, as drawn; some of each is visible, and so is the target."""
    monkeypatch.setattr("bench.findings.curves.name_lines", lambda drawing, grid: None)  # which takes long
    experiment = Experiment.read(name, ROOT / "results")
    target = experiment.arms[0].runs[0].target()
    for axes in figure(experiment).axes:
        lines = named_lines(axes)
        looks = [(line.get_color(), repr(line._unscaled_dash_pattern)) for line in lines]  # pyright: ignore[reportAttributeAccessIssue]
        assert len({*looks}) == len({line.get_label() for line in lines}) == len(lines) > 0
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for one, other in combinations(lines, 2):  # of the same places and colour: of two widths
            xys = np.asarray(one.get_xydata()), np.asarray(other.get_xydata())
            if one.get_color() == other.get_color() and xys[0].shape == xys[1].shape:
                seen = (xys[0] >= (left, low)) & (xys[0] <= (right, high))
                apart = abs(xys[0] - xys[1])[seen.all(axis=1)] / (right - left, high - low)
                if axes.get_xscale() == axes.get_yscale() == "linear" and len(apart) and apart.max() < 0.005:
                    assert one.get_linewidth() > other.get_linewidth()
        points = np.concatenate([np.asarray(line.get_xydata()) for line in lines])
        assert any(left <= x <= right and low <= y <= high for x, y in points)
        if axes.get_ylabel() == TITLES[target["metric"]]:
            marks = [np.asarray(line.get_ydata())[0] for line in axes.get_lines() if line not in lines]
            assert target["value"] in marks


def test_arms_of_other_settings_are_told_apart(tmp_path: Path) -> None:
    """Also where the first arm has no setting."""
    for label in ("sgd", "sparse,density=0.1", "sparse,density=0.01", "sparse,adversary=invert"):
        make_run(tmp_path / "runs" / label / "seed=1", 100)
        RunFolder(tmp_path / "runs" / label / "seed=1").write_config({"algorithm": {"name": label.split(",")[0]}})
    (axes,) = figure(experiment(tmp_path / "runs", figure={"kind": "curves", "x": ["round"]})).axes
    names = ["sgd", "sparse,adversary=invert", "sparse,density=0.01", "sparse,density=0.1"]
    assert sorted(str(line.get_label()) for line in axes.get_lines()) == names
    assert len({repr(line.get_linestyle()) for line in axes.get_lines()[1:]}) == 3


@pytest.mark.parametrize("experiment", COMMITTED)
def test_committed_summaries_are_those_of_their_histories(experiment: str) -> None:
    for file in (ROOT / "results" / experiment).glob("*/*/summary.json"):
        folder, summary = RunFolder(file.parent), json.loads(file.read_text())
        rows = folder.history()
        last = rows[-1] if rows else dict.fromkeys(name for name in COLUMNS if name in summary)
        assert {name: last[name] for name in COLUMNS if name in summary} == {
            name: summary[name] for name in COLUMNS if name in summary
        }
        target = summary["target"]
        reached = target_reached(rows, target["metric"], target["value"])
        assert target == {name: reached[name] for name in target}
        assert reached.keys() - target.keys() <= {"total_bits"}, "which older versions did not write"
        for earlier, later in pairwise(rows):
            rising = [c for c in COLUMNS if (c.endswith("_bits") and c != "message_bits") or c in ("round", "uploads")]
            assert all(earlier[c] <= later[c] for c in rising if earlier[c] is not None)


def test_a_full_disk_does_not_lose_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that could not be written at one evaluation are written at the next; a run without them is not complete."""
    written, calls, full = RunFolder.write_history, [], {2}

    def full_at_times(self: RunFolder, rows: Any) -> None:
        calls.append(len(rows))
        if len(calls) in full:
            raise OSError(28, "No space left on device")
        written(self, rows)

    monkeypatch.setattr(RunFolder, "write_history", full_at_times)
    options = ["algorithm=sgd", "trainer.max_epochs=2", "trainer.val_check_interval=10", "logger=csv"]
    train(composed([*options, f"results_dir={tmp_path}"]), options)
    folder = RunFolder(tmp_path / "local" / "sgd" / "seed=1")
    assert calls == [1, 2, 3, 3]
    assert [row["round"] for row in folder.history()] == [10, 20, 30]
    assert folder.is_complete
    assert "history.csv: not written, the run goes on" in capsys.readouterr().err
    full |= {7, 8}
    with pytest.raises(OSError, match="No space left"):
        train(composed([*options, "label=full", f"results_dir={tmp_path}"]), options)
    assert not RunFolder(tmp_path / "local" / "full" / "seed=1").is_complete


def test_a_checkpoint_that_does_not_fit_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files may have 100 kB, which torch tells as an error of its own. What a killed process left half written goes."""
    options = ["algorithm=sasg", "trainer.max_epochs=1", "trainer.val_check_interval=5", "logger=csv"]
    options += ["autosave_minutes=0", f"results_dir={tmp_path}"]
    folder = RunFolder(tmp_path / "local" / "sasg" / "seed=1")
    folder.path.mkdir(parents=True)
    (folder.path / "last.ckpt.7.partial").write_bytes(b"half")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        train(composed(options), options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert folder.is_complete
    told = "checkpoint: not written, the run goes on: [Errno 27] File too large: '" + str(folder.checkpoint)
    assert capsys.readouterr().err.count(told) == 2
    names = sorted(file.name for file in folder.path.iterdir())
    assert names == ["config.yaml", "history.csv", "split.png", "summary.json"]


def test_a_claim_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*run\.claim'"), RunFolder(tmp_path / "run").held():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "run").exists()


def test_a_stretch_of_rounds(tmp_path: Path) -> None:
    """Costs between two evaluations; the paper's numbers are of something else."""
    make_run(tmp_path / "toy" / "sgd" / "seed=1", 100)
    (line,) = table(Experiment.read("toy", tmp_path, View(rounds=(100, 300)))).rows
    assert line["uploads"] == Sample((2000,), 1)
    (line,) = table(Experiment.read("toy", tmp_path, View(rounds=(0, 100)))).rows
    assert line["uploads"] == Sample((1000,), 1)
    with pytest.raises(InputError, match=r"rounds: 150; .* was not evaluated then"):
        table(Experiment.read("toy", tmp_path, View(rounds=(150, 300))))
    with pytest.raises(InputError, match="rounds: 3-2"):
        View(rounds=(3, 2))
