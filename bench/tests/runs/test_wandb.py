"""W&B gets the numbers of history.csv: offline and online, in one go or resumed after a kill, and when sent later."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import InputError, NonFiniteError
from bench.findings.experiments import Experiment
from bench.findings.tables import table
from bench.runs.autosave import Autosave
from bench.runs.columns import BY_WORKER, COLUMNS, COSTS
from bench.runs.pace import PACE
from bench.runs.results import RunFolder, versions
from bench.runs.wandb_logger import COMPLETE, BudgetLogger
from bench.suite.scripts.matrix import matrix
from bench.suite.scripts.sync import newest_by_id, sync
from bench.suite.scripts.train import main, train
from bench.tests.configs import composed
from bench.tests.runs.wandb_server import Server, wandb_server

OPTIONS = ["algorithm=sasg", "trainer.max_epochs=4", "trainer.val_check_interval=10", "autosave_minutes=0"]


@pytest.fixture(autouse=True)
def finished() -> Iterator[None]:
    """Ends W&B after each test, so that no run reaches into the next."""
    import wandb

    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with wandb_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def run(folder: Path, *options: str) -> RunFolder:
    """Train a run to its end, logged to W&B."""
    given = [*OPTIONS, f"results_dir={folder / 'results'}", f"logger.save_dir={folder}", *options]
    train(composed(given), given)
    return RunFolder(folder / "results" / "local" / "sasg" / "seed=1")


@contextmanager
def dying_at_third(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run in this context dies at its third evaluation; its last checkpoint is from the second."""
    saved, count = Autosave.on_validation_end, []

    def save_or_die(self: Autosave, *args: Any) -> None:
        count.append(1)
        if len(count) == 3:
            raise RuntimeError("killed")
        saved(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Autosave, "on_validation_end", save_or_die)
        with pytest.raises(RuntimeError, match="killed"):
            yield


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of an offline run, read by W&B's own tool."""
    (file,) = folder.glob("*.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    said = subprocess.run(inspect, check=True, capture_output=True, text=True, timeout=60).stdout
    return [json.loads(line) for line in said.splitlines()]


def start(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(record["run"] for record in found if record["type"] == "run")


def exit_code(offline: Path) -> int:
    """Return the exit code of a run that has ended."""
    (ended,) = (record["exit"] for record in records(offline) if record["type"] == "exit")
    return ended["exit_code"]


def assert_failed(folder: Path) -> None:
    """Assert that the folder's only run has ended with exit code 1 and is not ready to be sent."""
    (offline,) = folder.glob("wandb/offline-run-*")
    assert exit_code(offline) == 1
    assert not (offline / COMPLETE).exists()


def assert_same(logged: list[dict[str, Any]], folder: RunFolder) -> None:
    """Assert that every row of the history was logged at its round, with the pace, and each number once."""
    rows = folder.history()
    assert [entry["_step"] for entry in logged] == [row["round"] for row in rows]
    for entry, row in zip(logged, rows, strict=True):
        plain = {name: value for name, value in row.items() if name not in BY_WORKER and value is not None}
        assert {name: entry[name] for name in plain} == pytest.approx(plain, rel=1e-12)
        assert [entry[f"skips/worker_{rank}"] for rank in range(10)] == row["skips"]
        assert entry["learning_rate"] == folder.config()["optimizer"]["lr"]
        assert entry["rounds_per_s"] > 0
        known = {*COLUMNS, *PACE, "_step", "_runtime", "_timestamp"}
        assert {name.partition("/")[0] for name in entry} <= known


def test_an_offline_run_holds_the_history(tmp_path: Path) -> None:
    folder = run(tmp_path)
    (offline,) = tmp_path.glob("wandb/offline-run-*")
    found = records(offline)
    assert_same([record["history"]["item"] for record in found if record["type"] == "history"], folder)
    metrics = [record["metric"] for record in found if record["type"] == "metric"]
    step_metrics = {metric.get("glob_name") or metric.get("name"): metric.get("step_metric") for metric in metrics}
    assert step_metrics["*"] == "round"
    assert set(COSTS) <= step_metrics.keys()
    summaries = [record["summary"].get("update", {}) for record in found if record["type"] == "summary"]
    summary = {key: value for update in summaries for key, value in update.items()}
    assert summary["best/test_accuracy"] == max(row["test_accuracy"] for row in folder.history())
    assert summary["best/train_loss"] == min(row["train_loss"] for row in folder.history())
    (config,) = (record["config"]["update"] for record in found if record["type"] == "config")
    assert config["algorithm"]["name"] == "sasg"
    assert config["versions"] == versions()
    assert start(found)["run_group"] == "local/sasg"
    assert start(found)["tags"] == ["local", "sasg", "seed=1"]
    (artifact,) = (record["artifact"] for record in found if record["type"] == "artifact")
    names = [entry["path"] for entry in artifact["manifest"]["contents"]]
    assert sorted(names) == ["config.yaml", "history.csv", "split.png", "summary.json"]


def test_a_resumed_offline_run_holds_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest folder of its id holds the whole run."""
    with dying_at_third(monkeypatch):
        run(tmp_path)
    folder = run(tmp_path)
    first, second = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert newest_by_id(tmp_path / "wandb") == {folder.wandb_id: second}
    assert first.name.rpartition("-")[2] == folder.wandb_id
    logged = [record["history"]["item"] for record in records(second) if record["type"] == "history"]
    assert len(logged) == 6
    assert_same(logged, folder)


def test_online(tmp_path: Path, server: Server) -> None:
    folder = run(tmp_path, "wandb_mode=online")
    assert list(server.history) == [folder.wandb_id]
    assert_same(server.history[str(folder.wandb_id)], folder)
    assert server.artifacts == ["local-sasg-seed-1"]


def test_a_resumed_online_run_goes_on_with_its_own(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds that were run twice are logged once."""
    with dying_at_third(monkeypatch):
        run(tmp_path, "wandb_mode=online")
    folder = run(tmp_path, "wandb_mode=online")
    assert list(server.history) == [folder.wandb_id]
    assert_same(server.history[str(folder.wandb_id)], folder)


@pytest.mark.parametrize("trouble", [InputError, RuntimeError, KeyboardInterrupt])
def test_a_failed_run_is_ended(trouble: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is refused, crashes or is interrupted under way."""

    def fail(*args: Any) -> None:
        raise trouble("in the middle")

    monkeypatch.setattr(Autosave, "on_validation_end", fail)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((trouble, SystemExit)):
            run(tmp_path)
    finally:
        signal.signal(signal.SIGINT, handler)  # after an interrupt, Lightning leaves the signal ignored
    assert_failed(tmp_path)


def test_a_run_refused_by_its_trainer_is_ended(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"strategy\.workers: 4"):
        run(tmp_path, "strategy.workers=4")
    assert_failed(tmp_path)


def test_sync_sends_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sync sends finished runs whole, under their full id, and nothing when repeated."""
    monkeypatch.setenv("WANDB_RUN_ID", "my-run")
    wandb_dir = tmp_path / "wandb"
    with dying_at_third(monkeypatch):
        run(tmp_path)
    sync(wandb_dir, dry_run=False)
    assert "0 runs sent, 1 not finished yet" in capsys.readouterr().out
    folder = run(tmp_path)
    sync(wandb_dir, dry_run=True)
    assert not server.history
    sync(wandb_dir, dry_run=False)
    assert_same(server.history["my-run"], folder)
    requests = server.requests
    sync(wandb_dir, dry_run=False)
    assert "0 runs sent, 0 not finished yet" in capsys.readouterr().out
    assert server.requests == requests


def test_sync_says_what_could_not_be_sent(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path)
    server.refusing = True
    with pytest.raises(InputError, match="W&B: not logged in, nothing is sent: Failed to authenticate"):
        sync(tmp_path / "wandb", dry_run=False)
    monkeypatch.setattr("bench.suite.scripts.sync.log_in", lambda: None)  # refused later
    with pytest.raises(SystemExit):
        sync(tmp_path / "wandb", dry_run=False)
    assert "failed: " in capsys.readouterr().out
    server.refusing = False
    sync(tmp_path / "wandb", dry_run=False)
    assert_same(server.history[str(folder.wandb_id)], folder)


def test_sync_tells_ids_with_dashes_apart(tmp_path: Path) -> None:
    """It finds the newest folder of each id, leaving out runs that were sent."""
    names = ["0101_000000-my-run", "0102_000000-my-run", "0102_000000-your-run", "0103_000000-run", "0104_000000-a-run"]
    folders = [tmp_path / f"offline-run-2026{name}" for name in names]
    for folder in folders:
        folder.mkdir()
    (folders[4] / "run-a-run.wandb.synced").touch()
    assert newest_by_id(tmp_path) == {"my-run": folders[1], "your-run": folders[2], "run": folders[3]}


def test_sync_waits_for_what_has_hardly_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of a run killed at its start has no record file yet."""
    (begun := tmp_path / "offline-run-20260101_000000-abcdefgh").mkdir()
    sync(tmp_path, dry_run=False)
    said, advice, *folders = capsys.readouterr().out.splitlines()
    assert "0 runs sent, 1 not finished yet" in said
    assert "`wandb sync FOLDER` sends one of these as it is" in advice  # a finished one of an earlier version, too
    assert folders == [str(begun)]


@pytest.mark.parametrize("key", ["", "too-short"])
def test_sync_needs_a_login(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is something to send, and before it starts to."""
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where keys are kept
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    (folder := tmp_path / "wandb" / "offline-run-20260101_000000-abcdefgh").mkdir(parents=True)
    (folder / COMPLETE).touch()
    monkeypatch.setattr(subprocess, "run", None)  # nothing starts
    sync(tmp_path / "wandb", dry_run=True)
    with pytest.raises(InputError, match="W&B: not logged in, nothing is sent"):
        sync(tmp_path / "wandb", dry_run=False)


ROOT = Path(__file__).parents[3]


def test_an_agent_runs_the_sweep(tmp_path: Path, server: Server) -> None:
    """Its runs have the ids that the sweep gives them, and folders of their own."""
    server.sweep = (ROOT / "examples" / "sweep.yaml").read_text("utf-8")
    sweep = yaml.safe_load(server.sweep)
    values = {key: {"value": found["values"][-1]} for key, found in sweep["parameters"].items()}
    values |= {"trainer.max_epochs": {"value": 2}}
    server.commands = [{"type": "run", "run_id": "first", "program": sweep["program"], "args": values}]
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    command = [sys.executable, "-m", "wandb", "agent", "--count=1", "someone/bitbudget/swept"]
    paths = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(command, cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, timeout=120)
    assert "error:" not in ran.stderr, ran.stderr
    folder = RunFolder(tmp_path / "results" / "swept" / "sasg,lr=0.1" / "seed=1")
    assert folder.config()["data"]["num_held_out"] == 300
    assert list(server.history) == ["first"]
    assert_same(server.history["first"], folder)
    assert server.summaries["first"][sweep["metric"]["name"]] == max(r["test_accuracy"] for r in folder.history())


THREADS = ["algorithm=gspar", "world=threads", "workers=2", "data=gspar_svm", "data.num_samples=400", "model=linear",
           "objective=hinge", "target.metric=train_loss", "asynchronous.milliseconds=200",
           "asynchronous.num_evaluations=4"]  # fmt: skip


def test_threads_are_logged_too(tmp_path: Path) -> None:
    given = [*THREADS, "optimizer.lr=0.001", f"results_dir={tmp_path / 'results'}", f"logger.save_dir={tmp_path}"]
    train(composed(given), given)
    (offline,) = tmp_path.glob("wandb/offline-run-*")
    logged = [record["history"]["item"] for record in records(offline) if record["type"] == "history"]
    rows = RunFolder(tmp_path / "results" / "local" / "gspar" / "seed=1").history()
    assert {entry["train_loss"] for entry in logged} <= {row["train_loss"] for row in rows}
    assert logged[-1]["train_loss"] == rows[-1]["train_loss"]
    assert {entry["learning_rate"] for entry in logged} == {0.001}
    assert all(entry["rounds_per_s"] > 0 for entry in logged[1:])


@pytest.mark.parametrize("options", [["trainer.max_epochs=1", "trainer.val_check_interval=15"], THREADS])
def test_a_sweep_has_a_run_for_every_job(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Hydra's -m, every job's run has ended and is ready to send, a diverged one too; WANDB_RUN_ID is ignored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "my-run")
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *options, "optimizer.lr=0.001,1e30,0.002",
                                      "label=${optimizer.lr}"])  # fmt: skip
    main()
    runs = [RunFolder(Path(f"results/local/{rate}/seed=1")) for rate in ("0.001", "1e+30", "0.002")]
    assert ["diverged" in run.summary() for run in runs] == [False, True, False]
    waiting = newest_by_id(Path("wandb"))
    assert waiting.keys() == {run.wandb_id for run in runs}
    assert len(waiting) == 3
    assert all((offline / COMPLETE).exists() for offline in waiting.values())
    assert exit_code(waiting[str(runs[1].wandb_id)]) == 0, "to diverge is a result"


def test_threads_that_diverge_have_said_so(tmp_path: Path) -> None:
    given = [*THREADS, "optimizer.lr=1e30", f"results_dir={tmp_path}", "logger=csv"]
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        train(composed(given), given)
    folder = RunFolder(tmp_path / "local" / "gspar" / "seed=1")
    assert "diverged" in folder.summary()
    assert all(math.isfinite(row["train_loss"]) for row in folder.history())


def test_the_matrix_logs_its_table(tmp_path: Path) -> None:
    grid = ["experiment=quickstart", "matrix.algorithm=[sgd]", "matrix.seed=[1]", "trainer.max_epochs=1", "name=toy",
            f"results_dir={tmp_path / 'results'}", f"logger.save_dir={tmp_path}"]  # fmt: skip
    matrix(grid)
    logged = {
        start(records(folder))["display_name"]: records(folder) for folder in tmp_path.glob("wandb/offline-run-*")
    }
    assert set(logged) == {"toy/sgd/seed=1", "toy/table"}
    found = logged["toy/table"]
    (artifact,) = (r["artifact"] for r in found if r["type"] == "artifact" and r["artifact"]["type"] == "results")
    names = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert {"sgd/seed=1/history.csv", "sgd/seed=1/summary.json"} <= names
    (shown,) = (tmp_path / "wandb").glob("offline-run-*/files/media/table/*.json")
    expected = table(Experiment.read("toy", tmp_path / "results")).csv().splitlines()
    assert json.loads(shown.read_text())["columns"] == expected[0].split(",")


def test_a_logger_that_does_not_start_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path, "logger._target_=bench.runs.wandb_logger.Missing")
    assert "logger: not started" in capsys.readouterr().err
    assert folder.is_complete


def test_a_logger_that_dies_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dead(*args: Any, **kwargs: Any) -> None:
        raise ConnectionResetError("its service is gone")

    monkeypatch.setattr(BudgetLogger, "log_metrics", dead)
    folder = run(tmp_path)
    assert "logger: not written, the run goes on: its service is gone" in capsys.readouterr().err
    assert len(folder.history()) == 6
    assert folder.is_complete


def test_no_wandb_where_none_is_asked_for(tmp_path: Path) -> None:
    """`logger=csv` does not import wandb."""
    code = "import sys; from scripts.train import main; main(); print('wandb' in sys.modules)"
    options = [*OPTIONS, "logger=csv", f"results_dir={tmp_path}"]
    said = subprocess.run([sys.executable, "-c", code, *options], check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "False"


def test_a_mode_that_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wandb_mode: 'onlien'; one of offline, online is needed"):
        BudgetLogger(tmp_path, mode="onlien", project="x")


def test_without_wandb_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.extras.find_spec", lambda package: None)
    options = ["trainer.max_epochs=1", "trainer.val_check_interval=10", f"results_dir={tmp_path}"]
    train(composed(options), options)
    told = "logger: wandb is not installed; bitbudget's extra [wandb] brings it; the run goes on"
    assert told in capsys.readouterr().err
    assert (tmp_path / "local" / "sasg" / "seed=1" / "summary.json").exists()
