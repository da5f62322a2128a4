"""The figure of skips shows what the committed runs skipped, and takes up larger runs once they are there."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.errors import InputError
from bench.findings.skips import PANELS, digest, drawing, lazy, shares

RESULTS = Path(__file__).parents[3] / "results"


def test_shares_add_up_to_the_skips_of_a_run() -> None:
    panels = lazy(RESULTS)
    assert panels
    for arms in panels.values():
        for run in (run for arm in arms for run in arm.runs):
            rows, (epochs, values) = run.history(), shares(run)
            lengths = np.diff([0, *(row["round"] for row in rows)])
            assert (values * lengths).sum() * len(rows[-1]["skips"]) == pytest.approx(sum(rows[-1]["skips"]))
            assert epochs[-1] == run.summary()["epoch"] + 1


def test_full_runs_take_the_place_of_short_ones(tmp_path: Path) -> None:
    """An experiment's first complete lazy arm is enough; one that never may skip is not."""
    full, short = PANELS["ResNet20, CIFAR-10"]

    def copy(arm: str, name: str) -> None:
        shutil.copytree(RESULTS / short / arm, tmp_path / name / arm)
        for file in (tmp_path / name / arm).glob("*/config.yaml"):
            file.write_text(file.read_text("utf-8").replace(f"name: {short}\n", f"name: {name}\n"), "utf-8")

    copy("sgd", full)
    copy("lasg", short)
    assert {arm.runs[0].path.parts[-3] for arm in lazy(tmp_path)["ResNet20, CIFAR-10"]} == {short}
    copy("sasg", full)
    ((title, arms),) = lazy(tmp_path).items()
    assert title == "ResNet20, CIFAR-10"
    assert [(arm.label, arm.runs[0].path.parts[-3]) for arm in arms] == [("sasg", full)]


def test_without_lazy_runs_it_says_which_are_needed(tmp_path: Path) -> None:
    shutil.copytree(RESULTS / "sasg_mnist" / "sgd", tmp_path / "sasg_mnist" / "sgd")
    with pytest.raises(InputError, match=r"skips: no complete run of a lazy arm; one is needed, of sasg_mnist, "):
        drawing(lazy(tmp_path))


def test_the_committed_figure_shows_the_results() -> None:
    with Image.open(RESULTS / "skips" / "figure.png") as image:
        assert image.info["Source"] == digest(lazy(RESULTS))
