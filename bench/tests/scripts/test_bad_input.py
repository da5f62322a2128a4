"""Bad input gives one clear line and exit status 2, and overwrites nothing."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.runs.results import RunFolder
from bench.strategies import refusals
from bench.suite.scripts import cli
from bench.suite.scripts.train import main, refuse
from bench.tests.configs import composed

SMALL = ["logger=csv", "trainer.max_epochs=1", "trainer.val_check_interval=5"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run scripts/train.py with these arguments and return the line that it prints before exit status 2."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, f"results_dir={tmp_path / 'results'}", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        assert exit.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert said.startswith("error: ")
        return said

    return call


THREADS = ["world=threads", "algorithm=sgd", "data=gspar_svm", "model=linear", "objective=hinge"]
STEP_LR = "+schedule={_target_:torch.optim.lr_scheduler.StepLR,_partial_:true}"
CONVEX = ["data=gspar_logistic", "model=linear", "objective=logistic", "algorithm=sgd"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["algorithm=sagd"], ["algorithm", "'sagd'", "sasg, sgd, signsgd, signsgd_mv"]),
        (["data=imagenet"], ["data", "'imagenet'", "cifar10, cifar100, digits", "mixed, mnist"]),
        (["model=vgg"], ["model", "'vgg'", "cnn, gpt, gspar_cnn, linear, mlp, resnet18, resnet20"]),
        (["experiment=none"], ["experiment", "quickstart", "sasg_mnist"]),
        (["algorithm.compressor.density=0"], ["density: 0", "(0, 1]"]),
        (["algorithm.compressor.density=1.5"], ["density: 1.5", "(0, 1]"]),
        (["workers=0"], ["workers: 0", "from 1 to"]),
        (["workers=1501"], ["workers: 1501", "at most 1500"]),
        (["data.batch_size=151"], ["batch_size: 151", "1 to 150"]),
        (["data.batch_size=0"], ["batch_size: 0", "1 to 150"]),
        (["algorithm.rule.max_age=0"], ["max_age: 0", "1 to"]),
        (["~target"], ["target: not in the config"]),
        (["algorithm.units=bytes"], ["algorithm.units: 'bytes'", "'gradient' or 'update'"]),
        (["link=ring"], ["link: ring", "sasg"]),
        (["link.bandwidth_bps=-1"], ["bandwidth_bps=-1"]),
        (["trainer.val_check_interval=16"], ["val_check_interval: 16", "at most 15"]),
        (["+trainer.limit_val_batches=0"], ["limit_val_batches: 0", "above 0"]),
        (["logger=wandb", "wandb_mode=onlien"], ["wandb_mode: 'onlien'", "'offline' or 'online'"]),
        (["algorithm.densty=0.1"], ["densty"]),
        (["workers=two"], ["workers: 'two'", "integer"]),
        (["workers=2.5"], ["workers: 2.5", "integer"]),
        (["seed=abc"], ["seed: 'abc'", "integer"]),
        (["threads=0"], ["threads: 0", "from 1 to"]),
        (["autosave_minutes=-1"], ["autosave_minutes: -1", "from 0 to"]),
        (["autosave_minutes=inf"], ["autosave_minutes: inf", "to 1,000,000"]),
        (["strategy=null"], ["strategy: None", "world=simulated"]),
        (["strategy.workers=4"], ["strategy.workers: 4", "as many as workers", "10"]),
        (["adversary=null,invert"], ["adversary: null,invert", "scripts/matrix.py"]),
        (["target.value=98%"], ["target.value: '98%'", "number"]),
        (["target.value=nan"], ["target.value: nan", "finite"]),
        (["target=null"], ["target: None"]),
        (["label=null"], ["label: None"]),
        (["label=.."], ["label: '..'", "folder"]),
        (["name=../../elsewhere"], ["name: '../../elsewhere'", "folder"]),
        (["optimizer.lr=abc"], ["optimizer.lr: 'abc'", "number"]),
        (["optimizer.lr=-1"], ["optimizer: ", "learning rate: -1"]),
        (["+optimizer.momentun=0.9"], ["optimizer.momentun: 0.9", "there is momentum"]),
        (["optimizer=adam", "+optimizer.betas=[0.9]"], ["optimizer.betas: [0.9]", "another entry"]),
        (["data.batch_size=2.5"], ["data.batch_size: 2.5", "integer"]),
        (["algorithm.rule.coefficient=abc"], ["algorithm.rule.coefficient: 'abc'", "number"]),
        (["algorithm.compressor=TopK"], ["algorithm.compressor: 'TopK'", "_target_"]),
        (["algorithm.compressor._target_=bench.compressors.TopQ"], ["bench.compressors.TopQ", "imported"]),
        (["schedule=steps", "schedule.milestones=5"], ["schedule.milestones: 5"]),
        (["schedule=steps", "schedule.milestones=[soon]"], ["schedule.milestones: ['soon']", "integer"]),
        (["schedule=steps", "schedule.gamma=-1"], ["schedule.gamma: -1", "above 0"]),
        (["schedule=steps", "schedule.gamma=abc"], ["schedule.gamma: 'abc'", "number"]),
        (["optimizer=adam", "+optimizer.betas=[nan,0.9]"], ["optimizer.betas.0: nan", "finite"]),
        (["trainer.max_epochs=-1", "+trainer.max_steps=null"], ["trainer.max_steps: None", "integer"]),
        (["optimizer.lr=nan"], ["optimizer.lr: nan", "finite"]),
        (["+optimizer.weight_decay=inf"], ["optimizer.weight_decay: inf", "finite"]),
        (["optimizer._target_=torch.optim.LBFGS"], ["LBFGS", "one that takes one"]),
        (["+trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val: -1", "above 0"]),
        (["trainer.max_epochs=null"], ["trainer.max_epochs: None", "trainer.max_steps"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs: 0", "above 0"]),
        (["trainer.max_epochs=1.5"], ["trainer.max_epochs: 1.5", "integer"]),
        (["trainer.val_check_interval=0"], ["trainer.val_check_interval: 0", "above 0"]),
        (["+trainer.limit_train_batches=0"], ["trainer.limit_train_batches: 0", "above 0"]),
        (["trainer.devices=abc"], ["trainer: ", "devices"]),
        (["+trainer.max_epoch=3"], ["trainer.max_epoch: 3", "max_epochs"]),
        (["+trainer.strategy=ddp"], ["trainer.strategy: 'ddp'", "sets it itself"]),
        (["+trainer.max_time='00:00:00:05'"], ["trainer.max_time", "sets it itself"]),
        (["+trianer.max_epochs=3"], ["trianer: ", "there is trainer"]),
        (["world=processes", "workers=4", "trainer.devices=2"], ["trainer.devices: 2", "as many as workers", "4"]),
        (["results_dir=/dev/null"], ["/dev/null"]),
        (["data=null"], ["data: null", "such as digits"]),
        (["optimizer.lr=1e30"], ["round ", "worker ", "not finite"]),
        (["+trainer.accumulate_grad_batches=2"], ["accumulate_grad_batches: 2"]),
        (["engine=fast"], ["engine: 'fast'", "'auto', 'loop', 'joint' or 'vmap'"]),
        (["split=labels", "data.split.num_labels=11"], ["num_labels: 11", "1 to 10"]),
        (["split=labels", "workers=4"], ["num_labels: 2", "4 workers hold 8", "nobody holds "]),
        (["split=dirichlet", "data.split.alpha=0"], ["alpha: 0;", "above 0"]),
        (["split=dirichlet", "data.split.alpha=-1"], ["alpha: -1", "above 0"]),
        (["split=sorted"], ["split", "'sorted'", "dirichlet, fixed, iid, labels, sources"]),
        (["+data.num_held_out=1500"], ["num_held_out: 1500", "1 to 1499"]),
        (["adversary=invert", "adversary.num_byzantine=10"], ["num_byzantine: 10", "0 to 9", "10 workers"]),
        (["adversary=invert", "adversary.num_byzantine=-1"], ["num_byzantine: -1", "0 to 9"]),
        (["seed=-1"], ["seed: -1", "from 0 to"]),
        (["seed=4294967296"], ["seed: 4294967296", "to 4,294,967,295"]),
        (["workers=${nope}"], ["workers: ${nope}", "no nope"]),
        (["autosave_minutes=1e300"], ["autosave_minutes: 1e+300", "to 1,000,000"]),
        (["results_dir="], ["results_dir: ''", "a folder"]),
        (["+strategy.seed=3"], ["strategy.seed: 3", "leave it out"]),
        (["strategy={_target_:torch.nn.Identity}"], ["strategy._target_: torch.nn.Identity", "CompressedStrategy"]),
        (["~strategy._target_"], ["strategy._target_: None", "CompressedStrategy"]),
        (["strategy._target_=math.sqrt"], ["strategy._target_: math.sqrt", "CompressedStrategy"]),
        (["+trainer.max_steps=0"], ["trainer.max_steps: 0", "above 0"]),
        (["+trainer.check_val_every_n_epoch=0"], ["trainer.check_val_every_n_epoch: 0", "above 0"]),
        (["+trainer.check_val_every_n_epoch=2"], ["trainer.check_val_every_n_epoch: 2", "before its first"]),
        ([STEP_LR], ["schedule: ", "step_size"]),
        ([STEP_LR, "+schedule.step_size=0"], ["schedule: ", "modulo by zero"]),
        (["algorithm=onebit_adam", "algorithm.moments.epsilon=inf"], ["epsilon: inf", "finite"]),
        (
            ["algorithm=lasg", "algorithm.rule._target_=bench.rules.LASGPS", "+algorithm.rule.smoothness=nan"],
            ["smoothness: nan", "finite"],
        ),
        (
            ["data=shakespeare", "trainer.max_epochs=3"],
            ["data: Shakespeare", "Classifier with Sequential cannot read it"],
        ),
        (["split=dirichlet", "data.split.alpha=inf"], ["alpha: inf", "finite"]),
        (["adversary=flip"], ["adversary", "'flip'", "invert, random, scale"]),
        (
            ["algorithm=signsgd_mv", "algorithm.compressor.zeros=zero"],
            ["compressor.zeros: 'zero'", "'plus' or 'random'"],
        ),
        (
            ["algorithm=signsgd_mv", "algorithm.aggregator.ties=odd"],
            ["aggregator.ties: 'odd'", "'zero', 'plus' or 'random'"],
        ),
        (
            ["algorithm=sparse_signsgd", "+algorithm.downlink._target_=bench.compressors.Sign"],
            ["ties: 'zero'", "downlink Sign has two values"],
        ),
        (["algorithm=sparse_signsgd", "algorithm.feedback.decay=1.5"], ["decay: 1.5", "[0, 1]"]),
        (["algorithm=signum", "algorithm.feedback.beta=1"], ["beta: 1", "[0, 1)"]),
        (["algorithm=sparse_signsgd", "algorithm.compressor.density=0"], ["density: 0", "(0, 1]"]),
        (["algorithm=signsgd", "algorithm.feedback._target_=bench.feedback.ErrorFeedback"], ["ErrorFeedback", "Sign"]),
        (["algorithm=gspar", "algorithm.compressor.density=0"], ["density: 0", "(0, 1]"]),
        (["algorithm=gspar", "algorithm.compressor.density=1.01"], ["density: 1.01", "(0, 1]"]),
        (["algorithm=gspar", "algorithm.compressor.iterations=-1"], ["iterations: -1", "at least 0"]),
        (["algorithm=gspar_closed", "algorithm.compressor.epsilon=0"], ["epsilon: 0", "above 0"]),
        (["algorithm=gspar_closed", "algorithm.compressor.epsilon=-1"], ["epsilon: -1", "above 0"]),
        (["algorithm=unisp", "algorithm.compressor.density=0"], ["density: 0", "(0, 1]"]),
        (["algorithm=random_k", "algorithm.compressor.density=2"], ["density: 2", "(0, 1]"]),
        (["algorithm=qsgd", "algorithm.compressor.levels=0"], ["levels: 0", "1 to 32767"]),
        (["algorithm=qsgd", "algorithm.compressor.bucket=0"], ["bucket: 0", "1 to"]),
        (
            ["algorithm=qsgd", "algorithm.compressor.bucket=9223372036854775808"],
            ["bucket: 9223372036854775808", "1 to"],
        ),
        (["algorithm=qsgd", "algorithm.compressor.norm=l1"], ["compressor.norm: 'l1'", "'l2' or 'max'"]),
        (["algorithm=terngrad", "algorithm.compressor.clip=0"], ["clip: 0", "above 0"]),
        (["algorithm=gspar", "algorithm.feedback._target_=bench.feedback.ErrorFeedback"], ["ErrorFeedback", "GSpar"]),
        (["world=processes", "workers=0"], ["workers: 0", "from 1 to"]),
        (["data=cifar10", "model=mlp"], ["model", "3 × 32 × 32"]),
        (["data=cifar10", "model=resnet20", "model.num_classes=100"], ["num_classes: 100", "10 classes"]),
        (["++trainer.fast_dev_run=true"], ["fast_dev_run"]),
        (["link.bandwidth_bps=nan"], ["bandwidth_bps=nan", "above 0"]),
        (["link.latency_s=inf"], ["latency_s=inf"]),
        (["algorithm.rule.coefficient=nan"], ["coefficient: nan"]),
        (["model=linear"], ["model.num_features: ${data.num_features}", "no data.num_features"]),
        (["data=cifar100", "model=resnet20"], ["num_classes: 10;", "100 classes"]),
        (["estimator=svrg", "estimator.interval=0"], ["interval: 0", "at least 1"]),
        (["estimator=local_sgd", "estimator.num_steps=0"], ["num_steps: 0", "at least 1"]),
        (["estimator=local_sgd", "estimator.num_steps=3"], ["batch: 10 samples a worker", "num_steps, 3"]),
        (["estimator=local_sgd", "algorithm=signsgd_mv"], ["lr: None; with MajorityVote", "a number is needed"]),
        (["algorithm=dgc", "algorithm.compressor.interval=0"], ["interval: 0", "at least 1"]),
        (["algorithm=dgc", "algorithm.feedback.max_norm=-1"], ["max_norm: -1", "above 0"]),
        (["algorithm=ef21", "algorithm.feedback.rate=2"], ["rate: 2", "(0, 1]"]),
        (["algorithm=laq", "algorithm.compressor.bits=9"], ["bits: 9", "2 to 8"]),
        (["algorithm=sparse", "algorithm.rule._target_=bench.rules.LAQ"], ["rule: LAQ", "Differences"]),
        (["target.metric=test_loss"], ["target.metric: 'test_loss'", "suboptimality"]),
        (["world=threads"], ["world: threads", "data=gspar_svm"]),
        ([*THREADS, "optimizer=adam"], ["optimizer: torch.optim.Adam", "plain sgd"]),
        ([*THREADS, "estimator=svrg"], ["estimator: bench.estimators.SVRG", "null"]),
        ([*CONVEX, "target.metric=test_accuracy"], ["target.metric: 'test_accuracy'", "suboptimality"]),
        (["algorithm=sgd", "target.metric=suboptimality"], ["target.metric: 'suboptimality'", "test_accuracy"]),
        ([*CONVEX, "data=digits", "model=mlp"], ["objective: ", "±1"]),
        ([*CONVEX, "+data.problem_seed=-1"], ["problem_seed: -1", "at least 0"]),
        (
            ["algorithm=random_k", "algorithm.feedback._target_=bench.feedback.ErrorFeedback"],
            ["ErrorFeedback", "RandomK"],
        ),
        ([*CONVEX, "objective.ridge=0"], ["ridge: 0", "above 0"]),
        ([*CONVEX, "data.threshold=1.5"], ["threshold: 1.5", "[0, 1]"]),
        ([*CONVEX, "data.num_samples=0"], ["num_samples: 0", "at least 1"]),
        ([*CONVEX, "model.num_features=7"], ["num_features: 7", "2048"]),
        (["split=sources"], ["split: sources", "data=mixed"]),
        (
            ["+data.augmentations=[{_target_: datamodules.augmentation.Crop, padding: -4}]"],
            ["padding: -4", "at least 0"],
        ),
        (
            ["+data.augmentations=[{_target_: datamodules.augmentation.Rotation, degrees: 270}]"],
            ["degrees: 270", "180"],
        ),
    ],
)
def test_one_clear_line(
    run: Callable[..., str],
    arguments: list[str],
    told: list[str],
    data_dir: Path,
) -> None:
    said = run(f"data_dir={data_dir}", *arguments)
    assert all(part in said for part in told), said


def test_a_folder_of_another_config(run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, f"results_dir={tmp_path / 'results'}"])
    main()
    folder = tmp_path / "results" / "local" / "sasg" / "seed=1"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    said = run("optimizer.lr=0.01", "workers=5")
    assert "optimizer.lr (0.05 there, 0.01 now)" in said
    assert "workers (10 there, 5 now)" in said
    assert "algorithm" not in said.partition("another config:")[2]
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_was_computed_is_kept(run: Callable[..., str], tmp_path: Path) -> None:
    """A diverged run keeps its history, and its summary says that it diverged."""
    said = run("algorithm=sgd", "optimizer.lr=1e5", "trainer.val_check_interval=1", "trainer.max_epochs=40")
    folder = tmp_path / "results" / "local" / "sgd" / "seed=1"
    evaluated = (folder / "history.csv").read_text().splitlines()[1:]
    assert f"round {len(evaluated)}: worker" in said
    assert f"round {len(evaluated)}: worker" in RunFolder(folder).summary()["diverged"]
    assert not (folder / "last.ckpt").exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator here")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_no_accelerator(run: Callable[..., str], accelerator: str) -> None:
    assert f"trainer.accelerator: {accelerator}; there is none here, cpu is allowed" in run(
        f"trainer.accelerator={accelerator}"
    )


def test_no_half_precision(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that only emulates it."""
    monkeypatch.setattr(refusals, "_has_bfloat16", lambda device: False)
    assert "precision: bf16-mixed; cpu does not compute in it" in run("+trainer.precision=bf16-mixed")


def damage(path: Path, kind: str) -> None:
    arrays = dict(np.load(path))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
        return
    if kind == "flipped":
        content = bytearray(path.read_bytes())
        content[3000:3100] = bytes(100)
        path.write_bytes(content)
        return
    if kind == "missing":
        del arrays["y_test"]
    elif kind == "shape":
        arrays["x_test"] = arrays["x_test"][:, :20]
    elif kind == "length":
        arrays["y_train"] = arrays["y_train"][:-3]
    elif kind == "dtype":
        arrays["x_train"] = arrays["x_train"].astype(np.float32)
    elif kind == "label":
        arrays["y_train"][7] = 11
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("truncated", ["x_train", "cannot be read"]),
        ("flipped", ["x_train", "cannot be read"]),
        ("missing", ["y_test", "cannot be read"]),
        ("shape", ["x_test", "(28, 28)", "(200, 20, 28)"]),
        ("length", ["y_train", "12000 labels", "(11997,)"]),
        ("dtype", ["x_train", "uint8", "float32"]),
        ("label", ["y_train", "below 10", "found 11"]),
    ],
)
def test_damaged_data(
    run: Callable[..., str],
    data_dir: Path,
    tmp_path: Path,
    kind: str,
    told: list[str],
) -> None:
    shutil.copy(data_dir / "mnist.npz", tmp_path / "mnist.npz")
    damage(tmp_path / "mnist.npz", kind)
    said = run("data=mnist", f"data_dir={tmp_path}")
    assert all(part in said for part in ["mnist.npz", *told]), said


@pytest.mark.parametrize("kind", ["truncated", "flipped", "other", "another structure"])
def test_a_damaged_checkpoint(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = RunFolder(tmp_path / "results" / "local" / "sasg" / "seed=1")
    folder.path.mkdir(parents=True)
    torch.save({"weights": torch.arange(4000.0)}, folder.checkpoint)
    intact = folder.checkpoint.read_bytes()
    content = bytearray(intact)
    content[2000:2050] = bytes(50)
    monkeypatch.setattr(RunFolder, "check", lambda self, config: None)  # it would miss the config of the run
    damaged = {
        "truncated": content[:900],
        "flipped": content,
        "other": b"not a checkpoint",
        "another structure": intact,
    }
    folder.checkpoint.write_bytes(damaged[kind])
    assert f"{folder.checkpoint}: damaged, remove it" in run("algorithm=sasg")
    assert folder.checkpoint.read_bytes() == damaged[kind]


def test_a_run_goes_on_with_another_target_that_it_has(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fails to write its summary keeps its checkpoint; a target metric that it lacks is refused at once."""
    options, folder = ["autosave_minutes=0"], RunFolder(tmp_path / "results" / "local" / "sasg" / "seed=1")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_summary", full)
        assert "No space left" in run(*options)
    saved = folder.checkpoint.read_bytes()
    assert "target.metric: 'suboptimality'; one of test_accuracy" in run(*options, "target.metric=suboptimality")
    assert folder.checkpoint.read_bytes() == saved
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, f"results_dir={tmp_path / 'results'}", "target.value=0.1"])
    main()
    assert folder.summary()["target"]["round"] == 5


def test_where_it_went_wrong_is_shown_to_whom_asks(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HYDRA_FULL_ERROR=1 shows the traceback, as in any Hydra application."""
    told = "error: workers: 0; a number from 1 to 1,000,000 is needed\n"
    command = [sys.executable, "-m", "bench.suite.scripts.train", "workers=0", f"results_dir={tmp_path}"]
    asking = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    ended = subprocess.run(command, env=asking, capture_output=True, text=True)
    assert "Traceback" in ended.stderr
    assert ended.stderr.endswith(told)
    assert ended.returncode == 2
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    importlib.reload(cli)
    assert run("workers=0") == told


def test_two_processes_at_one_run(run: Callable[..., str], tmp_path: Path) -> None:
    """The second is refused before it writes anything; the lock ends with its holder."""
    folder = RunFolder(tmp_path / "results" / "local" / "sasg" / "seed=1")
    with folder.held():
        assert folder.is_held
        assert "another process runs it" in run("algorithm=sasg")
    assert not folder.is_held
    assert not folder.path.exists()


class Options(torch.nn.Module):
    """A typical user module: extra keyword options, a dict of modules, a device, a default that its type excludes."""

    def __init__(
        self,
        parts: dict[str, torch.nn.Module],
        device: torch.device,
        size: int = None,  # noqa: RUF013  # pyright: ignore[reportArgumentType]
        **options: float,
    ) -> None: ...


@pytest.mark.parametrize(
    "arguments",
    [
        ["+k=0.05", "algorithm.compressor.density=${k}"],
        ["label=1", "name=2024"],
        ["trainer.max_epochs=-1", "+trainer.max_steps=10", "+trainer.max_time=null", "+trainer.fast_dev_run=false"],
        ["+trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=1", "+trainer.profiler=simple"],
        ["+trainer.profiler={_target_: lightning.pytorch.profilers.PyTorchProfiler, profile_memory: true}"],
        ["optimizer=adam", "+optimizer.betas=[0.9,0.99]", "+optimizer.weight_decay=0"],
        ["world=processes", "+strategy.bucket_cap_mb=10"],
        ["model._target_=torch.nn.RNN", "+model.input_size=784", "+model.hidden_size=10", "+model.nonlinearity=relu"],
        ["model._target_=torchvision.models.resnet18", "+model.weights=DEFAULT", "+model.num_classes=10"],
        [
            "model._target_=bench.tests.scripts.test_bad_input.Options", "+model.device=cpu", "+model.size=null",
            "+model.width=0.5", "+model.parts={a: {_target_: torch.nn.ReLU}}",
        ],
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_what_can_be_meant_is_let_pass(arguments: list[str]) -> None:
    refuse(composed(arguments))
