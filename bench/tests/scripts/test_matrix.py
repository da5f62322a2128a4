"""A grid that several share, its status, and its launchers."""

import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from bench.errors import InputError
from bench.runs.claim import STALE_S, Claim, claimed
from bench.runs.described import described
from bench.runs.grid import cells
from bench.runs.overrides import composable
from bench.runs.results import RunFolder
from bench.suite.scripts import matrix as script
from bench.suite.scripts.launchers import Ended
from bench.tests.runs.test_results import make_run

GRID = ["experiment=quickstart", "matrix.seed=[1]", "logger=csv"]


def put(folder: Path, **changes: Any) -> None:
    """Write a claim of another machine, live unless changed."""
    claim = Claim("elsewhere", 7, round=50, num_rounds=200, began_at=time.time() - 10, beat_at=time.time())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.claim").write_text(json.dumps(asdict(claim) | changes))


def test_a_claim_lives_as_long_as_its_heart(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    put(tmp_path)
    assert folder.claim_told == "elsewhere, process 7, round 50 of 200, about 0:00:30 to go"
    with pytest.raises(InputError, match=r"another process runs it \(elsewhere, process 7"), folder.held():
        pass
    put(tmp_path, beat_at=time.time() - STALE_S - 1)
    assert folder.claim is None
    put(tmp_path, host=socket.gethostname(), pid=2**22 + 1)
    assert folder.claim is None, "no process has this number"
    put(tmp_path, host=socket.gethostname(), pid=os.getpid())
    assert folder.claim is not None
    with folder.held() as claim:
        claim.progress(10, 100)
        assert folder.claim is not None
    assert folder.claim is None
    assert not (tmp_path / "run.claim").exists()


def test_its_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.runs.claim.BEAT_S", 0.01)
    with claimed(tmp_path / "claim") as claim:
        claim.progress(3, 9)
        deadline = time.monotonic() + 10
        while (read := Claim.read(tmp_path / "claim")) is None or read.round != 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_status_tells_what_has_become_of_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RunFolder, "check", lambda self, config: None)
    grid = tmp_path / "quickstart"
    make_run(grid / "sgd" / "seed=1", 100)
    put(grid / "sparse" / "seed=1")
    (grid / "lasg" / "seed=1").mkdir(parents=True)
    (grid / "lasg" / "seed=1" / "failed.txt").write_text("error: no memory\n")
    script.status([*GRID, f"results_dir={tmp_path}"])
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "running      sparse seed=1: elsewhere, process 7, round 50 of 200, about 0:00:30 to go",
        "failed       lasg seed=1: error: no memory",
        "left         sasg seed=1",
        "quickstart: 1 complete, 1 running, 1 failed, 1 left",
    ]


def test_a_run_that_another_holds_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never failed: the matrix waits, and takes it over when its claim is stale."""
    theirs, asked = tmp_path / "quickstart" / "sparse" / "seed=1", list[str]()

    def run(overrides: list[str], bar: int) -> Ended:
        (name,) = (override.partition("=")[2] for override in overrides if override.startswith("algorithm="))
        asked.append(name)
        make_run(tmp_path / "quickstart" / name / "seed=1", 100)
        return Ended(None, "")

    def sleep(seconds: float) -> None:
        assert asked == ["sgd"]
        put(theirs, beat_at=0)

    put(theirs)
    monkeypatch.setattr(script, "run_alone", run)
    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr(script, "log_table", lambda *given: None)
    monkeypatch.setattr(RunFolder, "check", lambda self, config: None)
    script.matrix([*GRID, "matrix.algorithm=[sgd,sparse]", "jobs=1", f"results_dir={tmp_path}"])
    assert asked == ["sgd", "sparse"]


@pytest.mark.parametrize(
    ("matrix", "told"),
    [
        ("{arms: {a: {algorithm: sgd, optimizer.lr: [0.1, 0.10]}}}", "2 runs are called a,lr=0.1 seed="),
        ("{algorithm: [sgd], seed: [1, 1]}", "2 runs are called sgd seed=1"),
        ("{arms: {a: {algorithm: sgd, seed: 5}}, seed: [1, 2]}", "seed is given by an arm and besides"),
        ("{arms: {a: {algorithm: sgd, name: other}}}", "name; the grid says where its runs lie"),
        ("{arms: {a: {algorithm: sgd, target.value: 0.5}}}", "target; all runs of a grid need the same"),
        ("{arms: {a: sgd}}", "arms.a: 'sgd'; a text as its name"),
        ("{arms: [a]}", r"arms: \['a'\]; a name and settings for each arm"),
        ("{arms: {2: {algorithm: sgd}}}", "arms.2: .*; a text as its name"),
        ("{arms: {a: {optimizer: {lr: 0.1}}}}", "arms.a.optimizer: {'lr': 0.1}; keys with dots"),
        ("{arms: {a: {optimizer.lr: []}}}", r"arms.a.optimizer.lr: \[\]; a list with one value"),
        ("{arms: {a: null}}", "no run is left"),
    ],
)
def test_a_grid_is_of_different_runs(matrix: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "experiment").mkdir()
    (folder / "own.yaml").write_text(f"# @package _global_\nname: own\nmatrix: {matrix}\n")
    monkeypatch.setenv("BITBUDGET_SEARCHPATH", f"file://{tmp_path}")
    with pytest.raises(InputError, match=rf"^matrix[:.] ?{told}"):
        cells(["experiment=own", "logger=csv"])


def test_an_arm_that_was_changed_is_not_its_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where every run of the grid is complete."""
    monkeypatch.setenv("BITBUDGET_SEARCHPATH", f"file://{tmp_path}")
    (folder := tmp_path / "experiment").mkdir()
    head = "# @package _global_\ndefaults: [quickstart, _self_]\nname: own\nmatrix:\n  algorithm: null\n  seed: [1]\n"
    arms = "  arms: {first: {algorithm: sgd}, second: {algorithm: sgd, optimizer.lr: LR}}\n"
    (folder / "own.yaml").write_text((head + arms).replace("LR", "0.2"))
    mine = ["experiment=own", "logger=csv", f"results_dir={tmp_path / 'results'}"]
    grid = cells(mine)[1]
    for cell in grid:
        make_run(cell.folder.path, 100)
        with initialize_config_module("bench.suite.configs", version_base="1.3"):
            cell.folder.write_config(described(compose("train", composable(cell.overrides))))
    script.status(mine)
    assert capsys.readouterr().out == "own: 2 complete\n"
    (folder / "own.yaml").write_text((head + arms).replace("LR", "0.3"))
    for command in (script.matrix, script.status):
        with pytest.raises(InputError, match=r"second/seed=1: written under another.*lr \(0.2 there, 0.3 now\)"):
            command(mine)
    (grid[1].folder.path / "config.yaml").unlink()
    script.status(mine)
    assert "damaged      second seed=1: " in (said := capsys.readouterr().out)
    assert "config.yaml: missing, restore it or remove the run" in said


def test_labels_may_have_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "experiment").mkdir()
    (folder / "own.yaml").write_text("# @package _global_\nname: own\nmatrix: {arms: {top-k's: {algorithm: sparse}}}\n")
    monkeypatch.setenv("BITBUDGET_SEARCHPATH", f"file://{tmp_path}")
    (cell,) = cells(["experiment=own"])[1]
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        assert compose("train", composable(cell.overrides)).label == "top-k's"


def test_a_run_that_ends_elsewhere_or_is_damaged_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(damaged := tmp_path / "quickstart" / "sgd" / "seed=1", 100)
    (damaged / "history.csv").write_text("round,train_loss\n100,1\n")
    monkeypatch.setattr(script, "run_alone", lambda overrides, bar: Ended(None, ""))
    monkeypatch.setattr(RunFolder, "check", lambda self, config: None)
    with pytest.raises(SystemExit, match="1"):
        script.matrix([*GRID, "matrix.algorithm=[sgd,sparse]", "jobs=1", f"results_dir={tmp_path}"])
    told = capsys.readouterr().out
    assert "quickstart: 0 of 2 runs complete" in told
    assert f"failed: sparse seed=1: it ended, and {tmp_path}/quickstart/sparse/seed=1 holds no complete run" in told
    assert f"damaged: sgd seed=1: {damaged}/history.csv: ends at round 100" in told
    script.status([*GRID, "matrix.algorithm=[sgd]", f"results_dir={tmp_path}"])
    assert "damaged      sgd seed=1" in capsys.readouterr().out


def test_it_ends_with_what_saves_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the table's mark where a seed missed the target."""
    for name, reached in {"sgd": (300, 300), "sparse": (100, None)}.items():
        for seed, first in zip((1, 19), reached, strict=True):
            make_run(tmp_path / "quickstart" / name / f"seed={seed}", first)
    script.conclude(cells([*GRID, f"results_dir={tmp_path}", "target.value=0.98"])[0], logs=False)
    told, then = capsys.readouterr().out.splitlines()
    assert told == "quickstart: sparse saves most of sgd's bits, both ways: 3× (1 of 2 seeds)"
    assert then == "next: tables.py quickstart --print, figures.py quickstart, dashboard.py"
    script.conclude(cells([*GRID, f"results_dir={tmp_path}", "target.value=0.999"])[0], logs=False)
    assert "quickstart: no run has reached test_accuracy 0.999" in capsys.readouterr().out


def test_launchers_that_there_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.extras.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"launcher: ray: hydra_ray_launcher is not installed; .*extra \[ray\]"):
        script.matrix([*GRID, "launcher=ray", f"results_dir={tmp_path}"])
    with pytest.raises(InputError, match="launcher: 'pbs'; one of local, joblib, submitit, submitit_local, ray"):
        script.matrix([*GRID, "launcher=pbs", f"results_dir={tmp_path}"])
