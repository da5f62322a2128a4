"""An offline W&B run holds the history, and a chart of every metric over every cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import RunFolder
from bench.tests.test_configs import composed
from bench.wandb_logger import AXES, METRICS
from scripts.train import train


def test_an_offline_run_holds_the_history(tmp_path: Path) -> None:
    """Read back with W&B's own tool."""
    import wandb

    options = ["algorithm=sgd", "trainer.max_epochs=2", "trainer.val_check_interval=10"]
    train(composed([*options, f"results_dir={tmp_path}", f"logger.save_dir={tmp_path}"]), options)
    wandb.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    said = subprocess.run(inspect, check=True, capture_output=True, text=True, timeout=60).stdout
    records = [json.loads(line) for line in said.splitlines()]
    logged = [record["history"]["item"] for record in records if record["type"] == "history"]
    rows = RunFolder(tmp_path / "local" / "sgd" / "seed=1").history()
    assert len(logged) == len(rows) == 3
    for entry, row in zip(logged, rows, strict=True):
        assert all(entry[name] == pytest.approx(value) for name, value in row.items() if value is not None)
        for column, axis in AXES.items():
            assert entry[axis] == pytest.approx(row[column])
            assert all(entry[f"by_{axis}/{name}"] == pytest.approx(row[name]) for name in METRICS if row[name])
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    step_metrics = {metric.get("glob_name"): metric.get("step_metric") for metric in metrics}
    assert {f"by_{axis}/*": axis for axis in AXES.values()}.items() <= step_metrics.items()
    assert any("algorithm" in json.dumps(record) for record in records if record["type"] == "config")


def test_a_logger_that_does_not_start_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["algorithm=sgd", "trainer.max_epochs=2", "trainer.val_check_interval=10", f"results_dir={tmp_path}"]
    train(composed([*options, "logger._target_=bench.wandb_logger.Missing"]), options)
    assert "logger: not started" in capsys.readouterr().err
    assert RunFolder(tmp_path / "local" / "sgd" / "seed=1").is_complete
