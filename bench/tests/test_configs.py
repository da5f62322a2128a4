"""Every experiment composes and runs two rounds; every recipe is a strategy by name; the scripts hold together."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_module
from lightning import Trainer
from omegaconf import DictConfig

import bench
from bench.results import COLUMNS, RunFolder
from bench.tests.toys import QUIET
from scripts.matrix import cells, matrix
from scripts.train import train

EXPERIMENTS = sorted(f.name.removesuffix(".yaml") for f in (files("configs") / "experiment").iterdir())
GROUPS = {
    group: sorted(f.name.removesuffix(".yaml") for f in (files("configs") / group).iterdir())
    for group in ("algorithm", "data", "model", "optimizer", "link", "logger", "trainer", "world")
}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays in the shape of the downloaded data sets, which a test machine does not have."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    x, y = rng.integers(0, 256, (600, 28, 28), dtype=np.uint8), rng.integers(0, 10, 600, dtype=np.uint8)
    np.savez(folder / "mnist.npz", x_train=x[:500], y_train=y[:500], x_test=x[500:], y_test=y[500:])
    return folder


def composed(overrides: list[str]) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        return compose("train", overrides)


def two_rounds(tmp_path: Path, data_dir: Path, *overrides: str) -> RunFolder:
    cfg = composed([*overrides, "+trainer.max_steps=2", "trainer.val_check_interval=2", "logger=csv",
                    f"results_dir={tmp_path}", f"data_dir={data_dir}"])  # fmt: skip
    train(cfg, list(overrides))
    return RunFolder(tmp_path / cfg.name / cfg.algorithm.name / f"seed={cfg.seed}")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_run(experiment: str, tmp_path: Path, data_dir: Path) -> None:
    """Every algorithm of its matrix, at its first seed."""
    given = [f"experiment={experiment}"]
    shared, grid = cells(given)
    assert shared.name == experiment
    assert len(grid) == np.prod([len(values) for values in shared.matrix.values()])
    for algorithm in shared.matrix.algorithm:
        folder = two_rounds(tmp_path, data_dir, *given, f"algorithm={algorithm}")
        (row,) = folder.history()
        assert tuple(row) == COLUMNS
        assert row["round"] == 2
        assert folder.is_complete


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_composes(group: str) -> None:
    for choice in GROUPS[group]:
        composed([f"{group}={choice}"])


@pytest.mark.parametrize("data", GROUPS["data"])
def test_every_data_set_runs(data: str, tmp_path: Path, data_dir: Path) -> None:
    assert two_rounds(tmp_path, data_dir, f"data={data}").is_complete


def test_real_processes_from_the_command_line(tmp_path: Path) -> None:
    """torchrun's three workers, and Lightning's, end with the history of three simulated ones but for measured_s."""
    script, histories = str(Path(__file__).parents[2] / "scripts" / "train.py"), []
    common = ["algorithm=sasg", "workers=3", "logger=csv", "trainer.max_epochs=1", "trainer.val_check_interval=10",
              f"results_dir={tmp_path}"]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=3"]
    for name, launcher, world in (
        ("simulated", [sys.executable], "simulated"),
        ("torchrun", torchrun, "processes"),
        ("lightning", [sys.executable], "processes"),
    ):
        subprocess.run([*launcher, script, *common, f"world={world}", f"name={name}"], check=True, timeout=120)
        rows = RunFolder(tmp_path / name / "sasg" / "seed=1").history()
        histories.append([{**row, "measured_s": None} for row in rows])
        assert all((row["measured_s"] is None) == (world == "simulated") for row in rows)
    assert histories[0] == histories[1] == histories[2]


def test_the_benchmark_prints_ratios() -> None:
    script = str(Path(__file__).parents[2] / "scripts" / "benchmark.py")
    run = subprocess.run([sys.executable, script, "sgd", "--rounds", "100"], check=True, capture_output=True, text=True)
    header, line = run.stdout.splitlines()
    assert header.split()[-1] == "ratio"
    recipe, round_ms, step_ms, ratio = line.split()
    assert recipe == "sgd"
    assert min(float(round_ms), float(step_ms), float(ratio)) > 0


def test_every_recipe_is_a_strategy() -> None:
    for name in bench.recipe_names():
        assert Trainer(strategy=name, **QUIET).strategy.algorithm.name == name  # pyright: ignore[reportAttributeAccessIssue]
        assert Trainer(strategy=f"{name}_ddp", **QUIET, devices=2).strategy.algorithm.name == name  # pyright: ignore[reportAttributeAccessIssue]


def test_papers_numbers_name_recipes() -> None:
    for experiment in EXPERIMENTS:
        paper = yaml.safe_load((files("configs") / "experiment" / f"{experiment}.yaml").read_text("utf-8")).get("paper")
        for column, numbers in (paper or {}).items():
            if column != "source":
                assert set(numbers) <= set(bench.recipe_names())


def test_a_complete_run_is_left_alone(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = two_rounds(tmp_path, data_dir, "algorithm=sgd")
    before = {file: file.stat().st_mtime_ns for file in folder.path.iterdir()}
    two_rounds(tmp_path, data_dir, "algorithm=sgd")
    assert "complete already" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in folder.path.iterdir()}


def test_the_matrix_goes_on_past_a_failed_cell(tmp_path: Path, capsys: Any) -> None:
    """sparse cannot travel a ring; sgd can. Run again, only the failed one is tried."""
    grid = ["experiment=quickstart", "matrix.algorithm=[sparse,sgd]", "matrix.seed=[1]", "link=ring", "logger=csv",
            "trainer.max_epochs=1", f"results_dir={tmp_path}", "name=ring"]  # fmt: skip
    said = ""
    for _ in range(2):
        with pytest.raises(SystemExit) as exit:
            matrix(grid)
        assert exit.value.code == 1
        said = capsys.readouterr().out
        assert "1 of 2 runs complete" in said
        assert "failed: algorithm=sparse seed=1: error: link: ring; sparse does not all-reduce" in said
    assert "algorithm=sgd" not in said
    assert RunFolder(tmp_path / "ring" / "sgd" / "seed=1").is_complete
    assert not (tmp_path / "ring" / "sparse").exists()
