"""Tuning gives every arm as many trials, goes on after a kill to the same result, and refuses what would be unfair."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from bench.errors import InputError
from bench.knobs import Knob
from bench.names import FOLDER
from bench.runs.tuning import Tuning, survivors
from bench.suite.scripts import tune as script
from bench.suite.scripts.launchers import Ended
from bench.suite.scripts.train import train
from bench.tests.configs import composed

RESULTS = Path(__file__).parents[3] / "results"
ARMS = ("adamw", "sparta")
BUDGET = 4


class Killed(Exception):
    """Stands for SIGKILL."""


def tuned(
    folder: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    arms: Sequence[str] = ARMS,
    most_runs: int = 100,
    width: int = 8,
) -> int:
    """Tune arms, whose runs happen in this process, until so many runs. Returns how many there were."""
    ran = 0

    def run(overrides: Sequence[str]) -> Ended:
        nonlocal ran
        if ran == most_runs:
            raise Killed
        ran += 1
        train(composed(list(overrides)), list(overrides))
        return Ended(None)

    monkeypatch.setattr(script, "run_alone", run)
    script.tune(["experiment=pretraining_small", f"budget={BUDGET}", f"arms=[{','.join(arms)}]", f"model.width={width}",
                 "model.num_layers=1", "workers=2", "trainer.max_steps=8", "data.context=16",
                 "tune.held_out='++data.num_held_out=40'",
                 f"data_dir={data_dir}", f"results_dir={folder}"])  # fmt: skip
    return ran


def written(folder: Path) -> dict[str, str]:
    files = (folder / "pretraining_small" / "tuning").glob("*.[cy][sa][vm]*")
    return {file.name: file.read_text("utf-8").replace(str(folder), "") for file in files}


def test_it_is_fair_and_goes_on(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    num_runs = tuned(whole, data_dir, monkeypatch)
    assert num_runs == sum(survivors(BUDGET, 3)) * len(ARMS) == 16
    for arm in ARMS:
        text = written(whole)[f"{arm}.csv"]
        rows = list(csv.DictReader(text.splitlines()))
        lengths = sorted({int(row["rounds"]) for row in rows})
        assert [sum(int(row["rounds"]) == length for row in rows) for length in lengths] == [4, 2, 2]
        last = [row for row in rows if int(row["rounds"]) == lengths[-1]]
        best = min(last, key=lambda row: float(row["val_loss"]))
        found = yaml.safe_load(written(whole)["tuned.yaml"])["matrix"]["arms"][arm]
        assert all(value == pytest.approx(float(best[key]), rel=1e-3) for key, value in found.items())
        knobs = len(rows[0]) - 3  # besides the arm, the length and the metric
        assert len(found) == knobs == (2 if arm == "sparta" else 1)
    with pytest.raises(Killed):
        tuned(cut, data_dir, monkeypatch, ARMS[1:], 6)
    tuned(cut, data_dir, monkeypatch, ARMS[1:])
    assert written(cut)["sparta.csv"] == written(whole)["sparta.csv"]
    with pytest.raises(InputError, match="a study of another experiment than pretraining_small is;"):
        tuned(cut, data_dir, monkeypatch, ARMS[1:], width=12)
    with pytest.raises(InputError, match="a study of another experiment than pretraining_small is;"):
        script.tune(["experiment=pretraining_small", "arms=[sparta]", f"results_dir={cut}", "+tune.shares=[0.5,1]"])


@pytest.mark.parametrize(("budget", "expected"), [(8, [8, 4, 2]), (4, [4, 2, 2]), (2, [2, 2, 2]), (1, [1, 1, 1])])
def test_the_better_half_goes_on(budget: int, expected: list[int]) -> None:
    assert survivors(budget, 3) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"low": 1, "high": 2}, "low, high and scale are needed"),
        ({"low": 1, "high": 2, "scale": "cubic"}, "scale: 'cubic'; one of log, linear"),
        ({"low": 2, "high": 1, "scale": "log"}, "2 to 1; finite numbers, low below high, are needed"),
        ({"low": 1, "high": float("inf"), "scale": "log"}, "1 to inf; finite numbers"),
        ({"low": True, "high": 2, "scale": "log"}, "True to 2; finite numbers"),
        ({"low": 0, "high": 1, "scale": "log"}, "low: 0; above 0 is needed on a log scale"),
    ],
)
def test_knobs_that_cannot_be_meant(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Knob.of("optimizer.lr", given, "tune")


LR = {"low": 0.1, "high": 1.0, "scale": "log"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (None, "tune: None; it declares no knobs"),
        ({"helt_out": 1}, "tune: helt_out; nothing reads it"),
        ({"held_out": "data.num_held_out=0"}, "nothing is tuned on test data"),
        ({"held_out": None}, "nothing is tuned on test data"),
        ({"arms": {"b": {}}}, "tune.arms: 'b'; one of a is needed"),
        ({"knobs": None}, "tune.knobs: none for a; one at least"),
        ({"arms": {"a": {"x": LR, "y": LR, "z": LR}}}, "tune.arms.a: x, y, z; at most 2"),
        ({"arms": {"a": {"optimizer.lr": None}}}, "tune.knobs: none for a; one at least"),
        ({"shares": [0.5, 0.2, 1]}, "fractions that grow to 1"),
    ],
)
def test_tuning_that_cannot_be_meant(changes: dict[str, Any] | None, told: str) -> None:
    fair = {"held_out": "data.num_held_out=10", "knobs": {"optimizer.lr": LR}}
    tune = None if changes is None else {**fair, **changes}
    with pytest.raises(InputError, match=told.replace("[", r"\[")):
        Tuning.of(OmegaConf.create({"name": "it", "matrix": {"arms": {"a": {}}}, "tune": tune})).knobs("a", {})


def test_whose_knob_it_is() -> None:
    """The experiment's for all, then the recipe's but for what the arm sets, then the experiment's for the arm."""
    recipe = {"compressor": {"share": 0.1, "side": 8}, "knobs": {"optimizer.lr": LR, "compressor.share": LR}}
    wide = {"low": 0.01, "high": 2.0, "scale": "log"}
    arms = {"plain": {}, "set": {"algorithm.compressor.share": 0.5}, "other": {}, "less": {}}
    own = {"other": {"algorithm.compressor.share": wide}, "less": {"algorithm.compressor.share": None}}
    tune = {"held_out": "data.num_held_out=10", "knobs": {"optimizer.lr": wide}, "arms": own}
    tuning = Tuning.of(OmegaConf.create({"name": "it", "matrix": {"arms": arms}, "tune": tune}))
    lows = {arm: {knob.key: knob.low for knob in tuning.knobs(arm, recipe)} for arm in arms}
    rate, share = "optimizer.lr", "algorithm.compressor.share"
    assert lows == {
        "plain": {rate: 0.1, share: 0.1},
        "set": {rate: 0.1},
        "other": {rate: 0.1, share: 0.01},
        "less": {rate: 0.1},
    }
    assert {knob.key: knob.low for knob in tuning.knobs("plain", {})} == {rate: 0.01}


@pytest.mark.parametrize("experiment", sorted(path.parent.name for path in RESULTS.glob("*/tuning")))
def test_committed_trials_are_of_these_knobs(experiment: str) -> None:
    """So the command would go on with their studies: it has the same knobs in the same order, and their ranges."""
    cfg = composed([f"experiment={experiment}"])
    tuning = Tuning.of(cfg)
    files = sorted((RESULTS / experiment / "tuning").glob("*.csv"))
    assert {file.stem for file in files} == tuning.arms.keys()
    for file in files:
        recipe = (FOLDER / f"{tuning.arms[file.stem]['algorithm']}.yaml").read_text("utf-8")
        described: Any = OmegaConf.to_container(OmegaConf.create(recipe), resolve=True)
        knobs = tuning.knobs(file.stem, described)
        rows = list(csv.DictReader(file.read_text("utf-8").splitlines()))
        assert list(rows[0]) == ["arm", "rounds", *(knob.key for knob in knobs), cfg.target.metric]
        assert all(knob.low <= float(row[knob.key]) <= knob.high for row in rows for knob in knobs)


def test_what_the_command_refuses(tmp_path: Path) -> None:
    for overrides, told in (
        (["experiment=quickstart"], "tune: None; quickstart declares no knobs"),
        (["experiment=pretraining_small", "budget=0"], "budget: 0; a whole number"),
        (["experiment=pretraining_small", "arms=[sgdd]"], "arms: 'sgdd'; one of adamw"),
        (
            ["experiment=pretraining_small", "arms=[adamw]", "trainer.max_steps=-1"],
            r"trainer.max_steps: -1; trials are",
        ),
    ):
        with pytest.raises(InputError, match=told):
            script.tune([*overrides, f"results_dir={tmp_path}"])
