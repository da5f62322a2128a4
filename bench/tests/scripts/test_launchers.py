"""Hydra's launchers run a grid's cells, each in a fresh process that says a line; skipped where one is not installed."""

import warnings
from pathlib import Path

import pytest

from bench.extras import missing
from bench.runs.results import RunFolder
from bench.suite.scripts.launchers import LAUNCHERS
from bench.suite.scripts.matrix import matrix

SETTINGS = {"ray": ["+hydra.launcher.ray.init.num_cpus=2"], "joblib": ["hydra.launcher.n_jobs=2"]}


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "ray"])
def test_a_launcher_runs_the_cells(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cell that is complete and one that fails; the second time, only the failed one is tried."""
    if why := missing(f"hydra_plugins.hydra_{LAUNCHERS[name][1]}_launcher"):
        pytest.skip(why)
    monkeypatch.chdir(tmp_path)
    grid = ["experiment=quickstart", "matrix.algorithm=[sparse,sgd]", "matrix.seed=[1]", "link=ring", "logger=csv",
            "trainer.max_epochs=1", f"launcher={name}", *SETTINGS.get(name, [])]  # fmt: skip
    with warnings.catch_warnings(), pytest.raises(SystemExit):
        warnings.simplefilter("ignore")  # of the launchers themselves
        matrix(grid)
    said = capfd.readouterr().out
    assert "quickstart: 1 of 2 runs complete" in said
    assert "failed: sparse seed=1: error: link: ring; sparse does not all-reduce" in said
    assert RunFolder(tmp_path / "results" / "quickstart" / "sgd" / "seed=1").is_complete
    if name != "submitit_local":  # whose jobs write into files of their own
        assert said.count("sgd seed=1: test_accuracy") == 1
