"""A grid that several share, its status, and its launchers."""

import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.runs.claim import STALE_S, Claim, claimed
from bench.runs.grid import cells
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


def test_status_tells_what_has_become_of_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
