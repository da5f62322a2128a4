"""What a run leaves behind: whole files, honest tables, and the same tables that are committed."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.arms import Arm, complete_runs
from bench.errors import InputError
from bench.figures import COLORS, digest, figure, save
from bench.results import COLUMNS, RunFolder, target_reached, write_whole
from bench.tables import Sample, sweep_table, target_table
from bench.tests.test_configs import composed
from scripts.tables import into_readme, specified, table_of
from scripts.train import train

ROOT = Path(__file__).parents[2]
COMMITTED = sorted({path.parts[-4] for path in (ROOT / "results").glob("*/*/*/summary.json")})


def row(**changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS, 1), "measured_s": None, "skips": [0, 3], "test_accuracy": 0.5, **changes}


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves what was there."""
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
    rows = [row(round=100, uplink_bits=10**15, modelled_s=0.1 + 0.2), row(round=200, train_loss=1e-9)]
    folder = RunFolder(tmp_path)
    folder.write_history(rows)
    assert folder.history() == rows


def test_the_target_is_reached_first_once() -> None:
    accuracies = {100: 0.97, 200: 0.98, 300: 0.981, 400: 0.99}
    rows = [row(round=round, test_accuracy=accuracy) for round, accuracy in accuracies.items()]
    assert target_reached(rows, "test_accuracy", 0.98)["round"] == 300  # above, not at
    missed = target_reached(rows, "test_accuracy", 0.999)
    assert (missed["round"], missed["uplink_bits"], missed["value"]) == (None, None, 0.999)


def test_differing_configs_are_told_by_key(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check({"lr": 0.1})
    folder.write_config({"lr": 0.1, "data": {"batch": 10, "name": "x"}})
    folder.check({"data": {"name": "x", "batch": 10}, "lr": 0.1})
    with pytest.raises(InputError, match=r"data\.batch \(10 there, 20 now\), extra \(None there, 1 now\)"):
        folder.check({"lr": 0.1, "data": {"batch": 20, "name": "x"}, "extra": 1})


def make_run(path: Path, reached: int | None) -> None:
    rows = []
    for r in (100, 200, 300):
        bits = {"uplink_bits": 3000 * r, "uplink_bits_paper": 2000 * r, "downlink_bits": 1000 * r}
        bits |= {"control_bits": 0, "total_bits": 4000 * r}
        accuracy = 0.99 if reached is not None and r >= reached else 0.9
        rows.append(row(round=r, uploads=10 * r, **bits, test_accuracy=accuracy))
    folder = RunFolder(path)
    folder.write_config({})
    folder.write_history(rows)
    folder.write_summary(rows, {"metric": "test_accuracy", "value": 0.98}, "python", downlink="dense")


def test_tables(tmp_path: Path) -> None:
    """Means over those that reached the target, misses said, half-written runs left out, ratios to sgd."""
    for recipe, rounds in {"sgd": (300, 300, 300), "sparse": (100, 200, None), "lasg": (None, None, None)}.items():
        for seed, reached in enumerate(rounds):
            make_run(tmp_path / recipe / f"seed={seed}", reached)
    (tmp_path / "sasg" / "seed=1").mkdir(parents=True)
    table = target_table("toy", tmp_path, {"source": "a paper", "uploads": {"sgd": 5}}, ["sgd", "sparse", "lasg"])
    assert [r["recipe"] for r in table.rows] == ["sgd", "sparse", "lasg"]
    sgd, sparse, lasg = table.rows
    assert sparse["round"] == Sample((100, 200), 3)
    assert (sgd["uploads_theirs"], sparse["uploads_theirs"]) == (5, None)
    assert sparse["uplink_bits_saving"] == sparse["both_ways_saving"] == 2
    assert lasg["uplink_bits_saving"] is None
    text = table.markdown()
    assert "150 ± 71 (1 of 3 missed)" in text
    assert "| lasg | 90.00 ± 0.00 | missed |" in text
    assert "sasg" not in text
    assert "(4.50 $\\pm$ 2.12)$\\cdot 10^{5}$" in table.latex()
    assert table.latex().count("&") == 4 * (len(table.columns) - 1)
    lines = list(csv.DictReader(table.csv().splitlines()))
    assert float(lines[1]["uplink_bits_mean"]) == 450_000
    assert (lines[1]["round_n"], lines[1]["round_missed"]) == ("2", "1")
    assert lines[2]["round_mean"] == ""


def test_sweeps(tmp_path: Path) -> None:
    """A row a recipe and other settings, a column a value in its order; what diverged is said to have."""
    for lr, accuracy in {"1.0": None, "0.03": 0.75, "0.2": 0.5}.items():
        folder = RunFolder(tmp_path / f"sgd,data=x,lr={lr}" / "seed=1")
        folder.write_config({"algorithm": {"name": "sgd"}})
        rows = [] if accuracy is None else [row(test_accuracy=accuracy)]
        facts = {"diverged": "round 3"} if accuracy is None else {}
        folder.write_summary(rows, {"metric": "test_accuracy", "value": 0.9}, "python", **facts)
    table = sweep_table("toy", tmp_path, [], across="lr")
    assert [c.title for c in table.columns] == ["recipe", "lr 0.03", "lr 0.2", "lr 1"]
    assert "| sgd data=x | 75.00 | 50.00 | diverged |" in table.markdown()
    assert "test_accuracy after the last round, %" in table.caption


def test_figures(tmp_path: Path) -> None:
    """Lines are the means of the histories, bands their extremes; the same data give the same bytes."""
    for recipe, reached in {"sgd": (300, 200), "sparse": (100, 300)}.items():
        for seed, first in enumerate(reached):
            folder = tmp_path / "runs" / recipe / f"seed={seed}"
            make_run(folder, first)
            RunFolder(folder).write_config({"algorithm": {"name": recipe}})
    arms = [Arm(label, runs) for label, runs in complete_runs(tmp_path / "runs", []).items()]
    drawing = figure({"kind": "curves", "x": ["round", "total_bits"]}, arms)
    rounds, bits = drawing.axes
    (sgd, sparse) = rounds.get_lines()
    assert sgd.get_ydata() == pytest.approx([0.9, 0.945, 0.99])
    assert sparse.get_ydata() == pytest.approx([0.945, 0.945, 0.99])
    assert bits.get_lines()[0].get_xdata() == pytest.approx([4e5, 8e5, 12e5])
    assert (sgd.get_color(), sparse.get_color()) == (COLORS["sgd"], COLORS["sparse"])
    saved = []
    for name in ("a", "b"):
        save(figure({"kind": "curves", "x": ["round", "total_bits"]}, arms), tmp_path / name, "data")
        saved.append([(tmp_path / name / f"figure.{suffix}").read_bytes() for suffix in ("png", "pdf")])
    assert saved[0] == saved[1]
    with pytest.raises(InputError, match=r"figure\.kind: 'pie'; one of curves, sweep"):
        figure({"kind": "pie"}, arms)


def test_figures_of_sweeps(tmp_path: Path) -> None:
    """A point a value, in order; a cross where a run diverged."""
    for workers, loss in {"9": 0.1, "1": 0.3, "16": None}.items():
        folder = RunFolder(tmp_path / f"signsgd_mv,workers={workers}" / "seed=1")
        folder.write_config({"algorithm": {"name": "signsgd_mv"}})
        rows = [] if loss is None else [row(train_loss=loss)]
        facts = {"diverged": "round 3"} if loss is None else {}
        folder.write_summary(rows, {"metric": "test_accuracy", "value": 0.9}, "python", **facts)
    arms = [Arm(label, runs) for label, runs in complete_runs(tmp_path, []).items()]
    (axes,) = figure({"kind": "sweep", "x": "workers", "y": ["train_loss"]}, arms).axes
    line, crosses = axes.get_lines()
    assert np.asarray(line.get_xdata()).tolist() == [1, 9, 16]
    assert np.asarray(line.get_ydata())[:2] == pytest.approx([0.3, 0.1])
    assert np.asarray(crosses.get_xdata()).tolist() == [16]


def test_no_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'none' has no complete run"):
        table_of("none", tmp_path)


@pytest.mark.parametrize("experiment", COMMITTED)
def test_committed_tables_are_those_of_the_results(experiment: str, tmp_path: Path) -> None:
    table, folder = table_of(experiment, ROOT / "results"), ROOT / "results" / experiment
    for suffix, text in (("md", table.markdown()), ("tex", table.latex()), ("csv", table.csv())):
        assert (folder / f"table.{suffix}").read_text("utf-8") == text
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text("utf-8"), "utf-8")
    into_readme(readme, experiment, table)
    assert readme.read_text("utf-8") == (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("experiment", [e for e in COMMITTED if specified(e)[0].get("figure")])
def test_committed_figures_show_the_results(experiment: str) -> None:
    """The hash of what was drawn is that of what is there."""
    (spec, labels), folder = specified(experiment), ROOT / "results" / experiment
    arms = [Arm(label, runs) for label, runs in complete_runs(folder, labels).items()]
    with Image.open(folder / "figure.png") as image:
        assert image.info["Source"] == digest(spec["figure"], arms)
    assert (folder / "figure.pdf").read_bytes()[:4] == b"%PDF"


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
        assert target == target_reached(rows, target["metric"], target["value"])
        for earlier, later in pairwise(rows):
            rising = [c for c in COLUMNS if c.endswith("_bits") or c in ("round", "uploads")]
            assert all(earlier[c] <= later[c] for c in rising if earlier[c] is not None)


def test_a_full_disk_does_not_lose_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What could not be written at one evaluation is written at the next."""
    written, calls = RunFolder.write_history, []

    def full_at_second(self: RunFolder, rows: Any) -> None:
        calls.append(len(rows))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        written(self, rows)

    monkeypatch.setattr(RunFolder, "write_history", full_at_second)
    options = ["algorithm=sgd", "trainer.max_epochs=2", "trainer.val_check_interval=10", "logger=csv"]
    train(composed([*options, f"results_dir={tmp_path}"]), options)
    folder = RunFolder(tmp_path / "local" / "sgd" / "seed=1")
    assert calls == [1, 2, 3]
    assert [row["round"] for row in folder.history()] == [10, 20, 30]
    assert folder.is_complete
    assert "history.csv: not written, the run goes on" in capsys.readouterr().err
