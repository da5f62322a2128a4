"""A Ray cluster runs a grid's cells. (joblib does in bench/tests/test_examples.py; SLURM is on no machine of ours.)"""

import warnings
from pathlib import Path

import pytest

from bench.extras import missing
from bench.runs.results import RunFolder
from bench.suite.scripts.matrix import matrix

WHY = missing("hydra_plugins.hydra_ray_launcher")


@pytest.mark.skipif(bool(WHY), reason=WHY)
def test_ray_runs_the_cells(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One is complete, one fails, and each says a line."""
    grid = ["experiment=quickstart", "matrix.algorithm=[sparse,sgd]", "matrix.seed=[1]", "link=ring", "logger=csv",
            "trainer.max_epochs=1", "launcher=ray", "+hydra.launcher.ray.init.num_cpus=2",
            f"results_dir={tmp_path}"]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        with pytest.raises(SystemExit):
            matrix(grid)
    said = capfd.readouterr().out
    assert "quickstart: 1 of 2 runs complete" in said
    assert "failed: sparse seed=1: error: link: ring; sparse does not all-reduce" in said
    assert RunFolder(tmp_path / "quickstart" / "sgd" / "seed=1").is_complete
    assert said.count("sgd seed=1: test_accuracy") == 1
