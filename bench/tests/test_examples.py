"""The examples run as their first lines say, and an algorithm from outside keeps the laws."""

import contextlib
import os
import re
import runpy
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench
from bench.errors import InputError
from bench.laws.theirs import theirs
from bench.rules import Always
from bench.suite.scripts import check, figures, tables
from bench.suite.scripts.bare import forked
from bench.suite.scripts.matrix import matrix
from bench.tests.configs import aside
from bench.tests.found import RECIPES

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = EXAMPLES / "own_algorithm"


def as_worker(rank: int, example: Path, folder: Path) -> None:
    """Run an example as torchrun's worker, its output in a file."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    with (folder / f"{rank}.txt").open("w") as file, contextlib.redirect_stdout(file):
        runpy.run_path(str(example), run_name="__main__")


def without_numbers(text: str) -> str:
    """What an example prints, but for numbers, which differ from machine to machine."""
    return re.sub(r"[-+\d.e]*\d", "0", text)


@pytest.mark.parametrize("name", sorted(p.stem for p in EXAMPLES.glob("*.py")))
@pytest.mark.filterwarnings("default", "ignore:.*LeafSpec:FutureWarning")  # the latter are Lightning's own
def test_it_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    example = EXAMPLES / f"{name}.py"
    if "torchrun" in example.read_text("utf-8"):
        forked(2, as_worker, example, tmp_path)
        told = (tmp_path / "0.txt").read_text("utf-8")
    else:
        runpy.run_path(str(example), run_name="__main__")
        told = capsys.readouterr().out
    told = told.splitlines()[-1] + "\n"  # after what a library prints
    shown = EXAMPLES / "outputs" / f"{name}.txt"  # which the documentation shows
    if request.config.getoption("--rewrite-golden"):
        shown.write_text(told, "utf-8")
    assert "rounds" in told
    assert without_numbers(told) == without_numbers(shown.read_text("utf-8"))


def test_an_algorithm_from_outside_keeps_the_laws(tmp_path: Path) -> None:
    """In a process of its own: pytest runs there."""

    def checked() -> None:
        os.chdir(OWN)
        warnings.simplefilter("default")  # as in a new process
        sys.path.insert(0, str(OWN))
        sys.argv = ["check.py", "threshold", "--rounds", "50"]
        check.main()

    process = aside(checked, tmp_path / "said.txt")
    process.join()
    told = (tmp_path / "said.txt").read_text("utf-8")
    assert process.exitcode == 0, told
    assert "keeps its golden trace" in told
    assert told.count("holds (") == 18
    assert told.splitlines()[-1].startswith("threshold ")


def test_its_own_tests_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(OWN)
    tests = runpy.run_path(str(OWN / "test_threshold.py"))
    for name in (names := [name for name in tests if name.startswith("test_")]):
        tests[name]()
    assert len(names) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # joblib's launcher
def test_its_experiment_has_tables_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITBUDGET_SEARCHPATH", "pkg://threshold.configs")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(OWN), *sys.path]))
    monkeypatch.syspath_prepend(OWN)
    monkeypatch.chdir(tmp_path)
    without = [f"matrix.arms.{arm}=null" for arm in ("sgd", "sparse", "threshold")]
    one = ["+matrix.arms.one={algorithm: threshold}", "matrix.seed=[1]", "trainer.max_steps=20", "logger=csv"]
    one += ["launcher=joblib", "hydra.launcher.n_jobs=2"]
    matrix(["experiment=threshold_digits", *without, *one])
    for script in (tables, figures):
        monkeypatch.setattr(sys, "argv", [script.__name__, "threshold_digits"])
        script.main()
    folder = tmp_path / "results" / "threshold_digits"
    assert "| one |" in (folder / "table.md").read_text("utf-8")
    assert (folder / "figure.png").exists()


def renamed(**changes: Any) -> bench.Algorithm:
    return replace(RECIPES["sparse"], **changes)


class Loose(Always):
    """A part that can change."""

    __dataclass_params__ = SimpleNamespace(frozen=False)


def test_what_cannot_be_registered_is_told() -> None:
    with pytest.raises(InputError, match="sparse: a recipe of bitbudget has this name"):
        bench.register(RECIPES["sparse"])
    mine = bench.register(renamed(name="test_registered"))
    assert bench.register(renamed(name="test_registered")) == mine == bench.load_recipe("test_registered")
    with pytest.raises(InputError, match=r"test_registered: bench\.tests\.test_examples has registered another"):
        bench.register(renamed(name="test_registered", granularity="model"))
    with pytest.raises(InputError, match=r"Loose can change, but workers share it; frozen=True is needed"):
        bench.register(renamed(name="test_loose", rule=Loose()))
    local = type("Local", (type(mine.rule),), {})
    with pytest.raises(InputError, match=r"test_local: cannot be pickled"):
        bench.register(renamed(name="test_local", rule=local()))


def test_a_registered_recipe_is_a_strategy() -> None:
    from lightning import Trainer

    bench.register(renamed(name="test_strategy"))
    trainer = Trainer(strategy="test_strategy", accelerator="cpu", logger=False, enable_checkpointing=False)
    assert trainer.strategy.algorithm.name == "test_strategy"  # pyright: ignore[reportAttributeAccessIssue]


def test_packages_without_recipes_are_told() -> None:
    with pytest.raises(InputError, match=r"bench\.wire: has no recipe"):
        theirs("bench.wire")
    with pytest.raises(InputError, match="nosuch: cannot be imported"):
        theirs("nosuch")
