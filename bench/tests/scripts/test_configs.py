"""Every experiment composes and runs two rounds, every recipe is a strategy by name, and the scripts work together."""

import re
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

import bench
from bench.errors import InputError
from bench.findings.view import View, ViewedRun
from bench.laws.toys import QUIET
from bench.link import ShardedLink
from bench.recipes import make_recipe
from bench.runs.columns import COLUMNS
from bench.runs.described import described
from bench.runs.grid import Cell, _axis, cells
from bench.runs.overrides import composable
from bench.runs.results import RunFolder
from bench.suite.scripts.matrix import matrix
from bench.suite.scripts.train import main, refuse, train
from bench.tests.configs import assert_same_history, composed, free_port, started, torchruns

RESULTS = Path(__file__).parents[3] / "results"
TRAIN = Path(__file__).parents[3] / "scripts" / "train.py"
COMMITTED = sorted({file.parts[-4] for file in RESULTS.glob("*/*/*/config.yaml")})
EXPERIMENTS = sorted(f.name.removesuffix(".yaml") for f in (files("bench.suite.configs") / "experiment").iterdir())
GROUP_NAMES = (
    "adversary", "algorithm", "data", "estimator", "link", "logger", "model", "objective", "optimizer", "schedule",
    "split", "trainer", "world",
)  # fmt: skip
GROUPS = {
    group: sorted(f.name.removesuffix(".yaml") for f in (files("bench.suite.configs") / group).iterdir())
    for group in GROUP_NAMES
}


def two_rounds(tmp_path: Path, data_dir: Path, *overrides: str) -> RunFolder:
    cfg = composed([*overrides, "++trainer.max_steps=2", "trainer.val_check_interval=2", "logger=csv",
                    "+data.eval_batch_size=4", "+trainer.limit_val_batches=1",
                    f"results_dir={tmp_path}", f"data_dir={data_dir}"])  # fmt: skip
    train(cfg, list(overrides))
    return RunFolder.of(cfg)


def choices(cell: Cell) -> set[str]:
    """Return the settings of a cell other than numbers, its experiment and its label."""
    settings = (override.partition("=") for override in cell.overrides)
    numbers = r"[\d.]+(e-?\d+)?"
    return {
        key + value
        for key, _, value in settings
        if key not in ("experiment", "label") and not re.fullmatch(numbers, value)
    }


def one_sample_a_step(cell: Cell) -> str:
    """The smallest batch of a worker's round."""
    chosen = dict(override.split("=", 1) for override in cell.overrides if "=" in override)
    local = "algorithm" in chosen and bench.load_recipe(chosen["algorithm"]).local_steps is not None
    steps = "algorithm.local_steps.num_steps" if local else "estimator.num_steps"
    return f"data.batch_size=${{oc.select:{steps},2}}"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_run(experiment: str, tmp_path: Path, data_dir: Path) -> None:
    """Every algorithm or arm of its matrix runs, in one cell each; the paper's numbers belong to its rows.

    `<name>_rates` and `<name>_tuned` differ from `<name>` in numbers: the first algorithm runs, and those that `<name>`
    does not run. Of more than 16 arms every fourth runs.
    """
    shared, grid = cells([f"experiment={experiment}"])
    assert shared.name == experiment
    assert len({cell.folder.path for cell in grid}) == len(grid), "two cells would write to one folder"
    for column, numbers in (shared.get("paper") or {}).items():
        assert column == "source" or set(numbers) <= {cell.folder.path.parent.name for cell in grid}
    plain = re.sub("_(rates|tuned)$", "", experiment)
    elsewhere = [choices(cell) for cell in cells([f"experiment={plain}"])[1]] if plain != experiment else []
    short = []
    if "asynchronous" in shared:
        short += ["asynchronous.milliseconds=20", "asynchronous.num_evaluations=2"]
    if "num_layers" in shared.model:
        short += ["model.num_layers=1"]
    is_large = shared.model.get("_target_", "").endswith("resnet18")
    if is_large:
        short += ["workers=2"]  # ten workers take half a minute
    # One cell of every arm or algorithm is enough: other axes change only numbers.
    arms = {cell.folder.path.parent.name.split(",")[0]: cell for cell in grid}
    for number, cell in enumerate(arms.values()):
        many = len(arms) > 16 and number % 4 > 0
        if many or (number > 0 and choices(cell) in elsewhere):
            refuse(cfg := composed(cell.overrides))
            make_recipe(cfg.algorithm)
            continue
        # Of the large network, whose rounds take seconds, one run is enough: arms do not differ in it.
        other = ["model=resnet20"] if is_large and number > 0 else []
        folder = two_rounds(tmp_path, data_dir, *cell.overrides, *short, one_sample_a_step(cell), *other)
        *_, row = folder.history()
        assert tuple(row) == COLUMNS
        assert row["round"] == 2 or "asynchronous" in shared
        assert folder.is_complete


@pytest.mark.parametrize("experiment", COMMITTED)
def test_committed_results_are_those_of_the_grid(experiment: str) -> None:
    """One cell of each label with results composes to the config that was run; that run is complete."""
    _, grid = cells([f"experiment={experiment}"])
    there = {file.parent for file in (RESULTS / experiment).glob("*/*/config.yaml")}
    by_label = {cell.folder.path.parent.name: cell for cell in grid if RESULTS.parent / cell.folder.path in there}
    assert by_label.keys() == {folder.parent.name for folder in there}
    alike: dict[Any, DictConfig] = {}
    for cell in by_label.values():
        # Composing takes 0.1 s, so cells that differ only in values share one composed config and set them afterwards.
        settings = [override.lstrip("+").split("=", 1) for override in cell.overrides]
        choices = {"experiment", *GROUPS}
        kind = tuple((key, value if key in choices else ...) for key, value in settings)
        if kind in alike:
            there_to_set = [pair for pair in settings if pair[0] not in choices and not pair[0].startswith("~")]
            values = OmegaConf.from_dotlist([f"{key}={value}" for key, value in there_to_set])
            alike[kind].merge_with(values)
        else:
            alike[kind] = composed(composable(cell.overrides))
        folder = RunFolder(RESULTS.parent / cell.folder.path)
        folder.check(described(alike[kind]))
        assert folder.is_complete


@pytest.mark.parametrize(
    ("told", "overrides"),
    [
        ("sasg_cifar10/sgd", "experiment=sasg_cifar10 algorithm=sgd"),
        ("sasg_cifar10/sasg", "experiment=sasg_cifar10 algorithm=sasg algorithm.rule.coefficient=1"),
        (
            "resnet20_cifar10_full/lasg",
            "experiment=sasg_cifar10 model=resnet20 name=resnet20_cifar10_full target.value=0.86 algorithm=lasg"
            " algorithm.rule.coefficient=1 +algorithm.units=update",
        ),
        (
            "resnet20_cifar10_full/sparse",
            "experiment=sasg_cifar10 model=resnet20 name=resnet20_cifar10_full target.value=0.86 algorithm=sparse",
        ),
        (
            "resnet20_cifar100/sasg",
            "experiment=sasg_cifar100 model=resnet20 name=resnet20_cifar100 algorithm=sasg"
            " algorithm.rule.coefficient=1.25",
        ),
        ("resnet20_cifar100/sgd", "experiment=sasg_cifar100 model=resnet20 name=resnet20_cifar100 algorithm=sgd"),
    ],
)
def test_long_runs_are_cells_of_their_experiments(told: str, overrides: str, tmp_path: Path) -> None:
    """Runs of many hours were started by overrides alone: on a thread each, with two evaluations an epoch."""
    experiment, label = told.split("/")
    settings = [f"label={label}", "seed=1", "threads=1", "trainer.val_check_interval=250"]
    started = composed([*overrides.split(), *settings, "logger=csv", "autosave_minutes=5"])
    (cell,) = (
        cell for cell in cells([f"experiment={experiment}"])[1] if cell.folder.path == RunFolder.of(started).path
    )
    folder = RunFolder(tmp_path)
    folder.write_config(described(started))
    folder.check(described(composed(composable(cell.overrides))))


def test_the_sasg_papers_rates_are_a_sums() -> None:
    """Also when a recipe is chosen by name, although recipes use the mean."""
    for experiment in (name for name in EXPERIMENTS if name.startswith("sasg_")):
        cfg = composed([f"experiment={experiment}", "algorithm=sgd"])
        assert cfg.algorithm.aggregator == {"_target_": "bench.aggregators.Sum"}
        assert cfg.optimizer.lr in (0.005, 0.01)


def test_labels_tell_the_cells_of_a_grid_apart() -> None:
    """Algorithms and arms give their name, other settings the last part of their key; seeds share a folder."""
    grid = {
        "algorithm": ["sgd"],
        "optimizer.lr": [0.1, 0.2],
        "seed": [1, 2],
    }
    axes = [_axis(key, values) for key, values in grid.items()]
    assert [[pick.label for pick in axis] for axis in axes] == [["sgd"], ["lr=0.1", "lr=0.2"], ["", ""]]
    _, cells_of_one = cells(["+matrix.seed=[1,2]", "algorithm=sgd"])
    assert {cell.folder.path.parent.name for cell in cells_of_one} == {"sgd"}
    arms = _axis("arms", {"mean": {"algorithm": "sgd"}, "thin": {"algorithm": "sparse", "optimizer.lr": [1, 2]}})
    assert [(pick.label, pick.overrides) for pick in arms] == [
        ("mean", ["algorithm=sgd"]),
        ("thin,lr=1", ["algorithm=sparse", "optimizer.lr=1"]),
        ("thin,lr=2", ["algorithm=sparse", "optimizer.lr=2"]),
    ]


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_composes(group: str) -> None:
    for choice in GROUPS[group]:
        composed([f"{group}={choice}"])


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in ("split", "adversary") for name in GROUPS[group]])
def test_every_split_and_adversary_runs(choice: str, tmp_path: Path, data_dir: Path) -> None:
    data = ["data=mixed", "model=mlp", "+model.num_inputs=3072"] if choice == "split=sources" else []
    folder = two_rounds(tmp_path, data_dir, choice, *data, "algorithm=signsgd_mv")
    assert folder.is_complete
    assert (folder.path / "split.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("data", GROUPS["data"])
def test_every_data_set_runs(data: str, tmp_path: Path, data_dir: Path) -> None:
    convex = ["model=linear", "data.num_samples=400", "target.metric=suboptimality"]
    suits = {
        "digits": ["model=mlp"],
        "mnist": ["model=cnn"],
        "cifar100": ["model=resnet20", "model.num_classes=100"],
        "shakespeare": ["model=gpt", "model.width=8", "objective=language", "target.metric=val_loss"],
        "gspar_logistic": [*convex, "objective=logistic"],
        "gspar_svm": [*convex, "objective=hinge"],
    }
    assert two_rounds(tmp_path, data_dir, f"data={data}", *suits.get(data, ["model=resnet20"])).is_complete


def test_torchrun(tmp_path: Path) -> None:
    """Its workers have the history of simulated ones, except what only real processes measure."""
    common = ["algorithm=sasg", "workers=2", "logger=csv", "trainer.max_epochs=1", "trainer.val_check_interval=10",
              f"results_dir={tmp_path}"]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, str(TRAIN), *common, "world=processes", "name=real"], check=True, timeout=120)
    train(composed([*common, "name=simulated"]), common)
    assert_same_history(*(tmp_path / name / "sasg" / "seed=1" for name in ("real", "simulated")))


def test_photographs_in_real_processes(tmp_path: Path, data_dir: Path) -> None:
    """Real processes and simulation agree under augmentation, convolution, normalisation and stale passes."""
    common = ["algorithm=sasg", "data=cifar10", "model=resnet20", "workers=2", "data.batch_size=3", "logger=csv",
              "+data.eval_batch_size=20", "+trainer.max_steps=14", "trainer.val_check_interval=7",
              "+trainer.limit_val_batches=1", f"results_dir={tmp_path}", f"data_dir={data_dir}"]  # fmt: skip
    said, port = [tmp_path / "0.txt", tmp_path / "1.txt"], free_port()
    real = [
        started([*common, "world=processes", "name=real"], said[rank], **torchruns(rank, 2, port, local_rank=rank))
        for rank in range(2)
    ]
    for process in real:
        process.join(120)
    assert [process.exitcode for process in real] == [0, 0]
    told, nothing = (file.read_text() for file in said)
    assert not nothing
    assert told.count("\n") == told.count(": complete") == 1, "a run that goes well has nothing else to say"
    train(composed([*common, "name=simulated"]), common)
    assert_same_history(*(tmp_path / name / "sasg" / "seed=1" for name in ("real", "simulated")))
    *_, row = RunFolder(tmp_path / "real" / "sasg" / "seed=1").history()
    assert row["num_backwards"] > 2 * 14, "this test needs stale passes"


def test_every_recipe_is_a_strategy() -> None:
    for name in bench.recipe_names():
        assert Trainer(strategy=name, **QUIET).strategy.algorithm.name == name  # pyright: ignore[reportAttributeAccessIssue]
        assert Trainer(strategy=f"{name}_ddp", **QUIET, devices=2).strategy.algorithm.name == name  # pyright: ignore[reportAttributeAccessIssue]


def test_a_complete_run_is_left_alone(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = two_rounds(tmp_path, data_dir, "algorithm=sgd")
    before = {file: file.stat().st_mtime_ns for file in folder.path.iterdir()}
    two_rounds(tmp_path, data_dir, "algorithm=sgd")
    assert "complete already" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in folder.path.iterdir()}


def test_another_target_is_read_from_the_history(tmp_path: Path, data_dir: Path) -> None:
    """So are the seconds on another network. Neither changes a file, nor is a run made again for it."""
    folder = two_rounds(tmp_path, data_dir, "algorithm=sgd")
    before = {file: file.read_bytes() for file in folder.files()}
    changed = ["target.value=0.01", "link=sharded", "link.latency_s=1"]
    again = two_rounds(tmp_path, data_dir, "algorithm=sgd", *changed)
    assert {file: file.read_bytes() for file in again.files()} == before
    run = ViewedRun(folder.path)
    assert run.history() == folder.history()
    assert run.target()["round"] is None
    assert replace(run, view=View(target=0.01)).target()["round"] == 2
    with pytest.raises(InputError, match=r"target\.metric: 'suboptimality'; one of test_accuracy"):
        replace(run, aim={"metric": "suboptimality", "value": 1}).target()
    (row,), (slow,) = folder.history(), replace(run, view=View(ShardedLink(latency_s=1))).history()
    assert slow["modelled_s"] == pytest.approx(2 * 3, rel=0.05)  # two rounds of reports, pieces and answers
    assert {**slow, "modelled_s": row["modelled_s"]} == row
    (stepped,) = replace(run, view=View(ShardedLink(latency_s=1), step_ms=100, overlap=1)).history()
    assert stepped["modelled_s"] == pytest.approx(slow["modelled_s"])  # 0.1 s of computing, as much of it hidden


def test_an_older_history_says_what_is_unknown(tmp_path: Path, data_dir: Path) -> None:
    """Without what seconds follow from, those on the run's own network remain, and others are unknown."""
    folder = two_rounds(tmp_path, data_dir, "algorithm=sgd")
    old = [row | {"worker_bits": None, "answers": None} for row in folder.history()]
    folder.write_history(old)
    assert ViewedRun(folder.path).history() == folder.history() == old
    assert [row["modelled_s"] for row in ViewedRun(folder.path, View(ShardedLink())).history()] == [None]


def test_an_optional_group_may_be_null() -> None:
    assert composable(["adversary=null", "algorithm=sgd"]) == ["~adversary", "algorithm=sgd"]
    _, grid = cells(["+matrix={adversary: [null, invert]}", "algorithm=sgd"])
    folders = [composed(composable(cell.overrides)).get("adversary") for cell in grid]
    assert [folder and folder.factor for folder in folders] == [None, -1.0]
    assert composed(composable(["experiment=gspar_sgd", "schedule=null"])).get("schedule") is None


def test_the_matrix_refuses_what_it_cannot_mean(tmp_path: Path, data_dir: Path) -> None:
    """It refuses folders with runs of another config, axes without values, and invalid numbers of jobs."""
    grid = ["experiment=quickstart", "logger=csv", f"results_dir={tmp_path}"]
    folder = RunFolder(tmp_path / "quickstart" / "sgd" / "seed=1")
    folder.write_config({"name": "quickstart", "seed": 1})
    folder.write_summary([], {"metric": "test_accuracy", "value": 0.9}, "python")
    for given, said in (
        ([], "written under another config"),
        (["matrix.seed=[]"], r"matrix\.seed: \[\]; a list"),
        (["matrix.seed=1"], r"matrix\.seed: 1; a list"),
        (["jobs=-1"], "jobs: -1; at least 1"),
        (["+matrix.arms={a: {target.value: 0.5}}"], "matrix: target; all runs of a grid need the same"),
        (["jobs=1.5"], r"jobs: 1\.5; at least 1"),
        (["name="], "name: ''; results need one"),
        (["seed=5"], "seed: the matrix sets it for each run"),
        (["algorithm=sasg"], "algorithm: the matrix sets it for each run"),
        (["label=mine"], "label: the matrix sets it for each run"),
    ):
        with pytest.raises(InputError, match=said):
            matrix([*grid, *given])


def test_a_sweep_goes_on_past_a_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Hydra's -m: two runs diverge, two more are refused the same folders, and all four are tried."""
    monkeypatch.chdir(tmp_path)
    arguments = ["-m", "optimizer.lr=1e30,0.01", "label=one,other", "logger=csv", "trainer.max_epochs=1",
                 "trainer.val_check_interval=15"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    main()
    said = capsys.readouterr().err
    runs = {label: RunFolder(Path("results/local") / label / "seed=1") for label in ("one", "other")}
    assert all("diverged" in run.summary() for run in runs.values())
    assert said.count("not finite") == 2
    assert said.count("another config: optimizer.lr (1e+30 there, 0.01 now); choose another name= or label=") == 2


def test_a_sweep_over_worlds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real processes end with their job, so the next job runs once; both have one history."""
    monkeypatch.chdir(tmp_path)
    arguments = ["-m", "world=processes,simulated", "label=${hydra:runtime.choices.world}", "workers=2", "logger=csv",
                 "trainer.max_epochs=1", "trainer.val_check_interval=15"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    main()
    assert capfd.readouterr().out.count(": complete") == 2
    assert_same_history(*(Path("results/local") / world / "seed=1" for world in ("processes", "simulated")))


def test_the_matrix_goes_on_past_a_failed_cell(tmp_path: Path, capsys: Any) -> None:
    """A ring cannot carry sparse, but can carry sgd. When repeated, only the failed cell is tried."""
    grid = ["experiment=quickstart", "matrix.algorithm=[sparse,sgd]", "matrix.seed=[1]", "link=ring", "logger=csv",
            "trainer.max_epochs=1", f"results_dir={tmp_path}", "name=ring"]  # fmt: skip
    said = ""
    for _ in range(2):
        with pytest.raises(SystemExit) as exit:
            matrix(grid)
        assert exit.value.code == 1
        said = capsys.readouterr().out
        assert "1 of 2 runs complete" in said
        assert "failed: sparse seed=1: error: link: ring; sparse does not all-reduce" in said
    assert "sgd seed=1" not in said
    assert RunFolder(tmp_path / "ring" / "sgd" / "seed=1").is_complete
    assert not (tmp_path / "ring" / "sparse").exists()
