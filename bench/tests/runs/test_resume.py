"""A run that is killed and resumed equals an uninterrupted one, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from bench.errors import InputError
from bench.laws.kills import Killed, RoundData, SaveAndDie, fit
from bench.laws.recipes import goes_on_where_it_was_killed
from bench.laws.toys import Normed, Toy, counted, toy_data, train
from bench.laws.worlds import M, run_processes
from bench.rules import LASGWK2
from bench.runs.progress import Progress
from bench.runs.results import RunFolder
from bench.suite.datamodules.sharding import RoundLoader
from bench.suite.scripts import train as script
from bench.tests.configs import composed, started
from bench.tests.found import RANDOM, RECIPES, RULES


class Jittered(RoundData):
    """Adds fresh noise to the inputs in every round, as augmentation does."""

    def train_dataloader(self) -> RoundLoader:
        loader = super().train_dataloader()
        plain = loader.dataset

        class Shaken(torch.utils.data.Dataset):
            def __getitem__(self, indices: torch.Tensor) -> Any:
                x, y = plain[indices]
                drawn = [
                    torch.randn(x.shape[1:], generator=origin.generator("augmentation", x.device))
                    for origin in loader.rounds.noise()
                ]
                return x + 0.1 * torch.stack(drawn), y

        return RoundLoader(Shaken(), loader.rounds)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(toy_data(), batch_size=100)


class Decaying(Toy):
    """The learning rate falls at the start of the second epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], gamma=0.2)]


CASES = {
    **RECIPES,
    **{f"sasg-{type(rule).__name__}": replace(RECIPES["sasg"], rule=rule) for rule in RULES if not rule.drafts},
    "rescaled": replace(RECIPES["sasg"], stale_scale="rescaled"),
    "random zeros and ties": RANDOM,
}


@pytest.mark.parametrize("name", CASES)
def test_exact(name: str, tmp_path: Path) -> None:
    goes_on_where_it_was_killed(CASES[name], tmp_path)


class SaveAtEvaluation(Callback):
    """Saves at every evaluation, as `Autosave` does, and dies at the one after the given round."""

    def __init__(self, path: Path, after: int) -> None:
        self.path = path
        self.after = after

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.save_checkpoint(self.path)
        if trainer.global_step == self.after:
            raise Killed


class Evaluated(Decaying):
    """Has a validation step, so that evaluations happen."""

    def validation_step(self, batch: Any) -> None:
        self.training_step(batch)


@pytest.mark.parametrize("limit", [30, 24], ids=["whole epochs", "limited epochs"])
@pytest.mark.parametrize("lagging", [True, False], ids=["lagging", "at once"])
def test_schedules_and_augmentations_go_on(limit: int, lagging: bool, tmp_path: Path) -> None:
    """Inside epochs, and where an evaluation coincides with an epoch's end."""
    recipe = replace(RECIPES["sasg"], rule=LASGWK2(lagging=lagging))
    options = {
        "max_epochs": 3, "module": Evaluated, "limit_train_batches": limit, "limit_val_batches": 1,
        "num_sanity_val_steps": 0, "val_check_interval": 6, "check_val_every_n_epoch": None,
    }  # fmt: skip
    weights, ledger = fit(recipe, Jittered(), [], **options)
    assert ledger["rounds"] == 3 * limit
    path = tmp_path / "saved.ckpt"
    for after in (12, limit, 2 * limit):
        with pytest.raises(Killed):
            fit(recipe, Jittered(), [SaveAtEvaluation(path, after)], **options)
        resumed_weights, resumed_ledger = fit(recipe, Jittered(), [], path, **options)
        assert resumed_ledger == ledger, after
        assert torch.equal(resumed_weights, weights), after


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_loader_of_the_users_own(tmp_path: Path) -> None:
    """Resumed between epochs, shuffling continues: the checkpoint contains the generators."""

    def shuffled() -> DataLoader:
        return DataLoader(toy_data(), batch_size=16, shuffle=True)

    weights, ledger = fit("sasg", shuffled(), [], max_epochs=2)
    save = ModelCheckpoint(tmp_path, filename="saved", save_on_train_epoch_end=True)
    fit("sasg", shuffled(), [save], max_epochs=1, enable_checkpointing=True)
    resumed = fit("sasg", shuffled(), [], tmp_path / "saved.ckpt", max_epochs=2)
    assert torch.equal(resumed[0], weights)
    assert resumed[1] == ledger


@pytest.mark.parametrize(("recipe", "module"), [("sgd", Normed), ("sparta", Toy)])
def test_a_finished_fit_is_left_as_it_is(recipe: str, module: Any, tmp_path: Path) -> None:
    """With what workers have of their own averaged, also for callbacks at its end."""
    seen = []

    class Watching(Callback):
        def on_train_batch_end(self, trainer: Trainer, *rest: Any, **named: Any) -> None:
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

        def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
            seen.append({name: t.clone() for name, t in pl_module.state_dict().items()})

    first = train(recipe, module, rounds=6, batch_size=8, callbacks=[Watching()])
    again = train(recipe, module, rounds=6, batch_size=8, checkpoint=tmp_path / "last.ckpt")
    for states in (again.module.state_dict(), *seen):
        assert all(torch.equal(states[name], t) for name, t in first.module.state_dict().items())
    assert len(seen) == 1


def test_across_worlds(tmp_path: Path) -> None:
    """A simulation's checkpoint resumes in real processes: each process takes its worker's rows."""
    whole = train("sasg", workers=M, rounds=60)
    path = tmp_path / "saved.ckpt"
    with pytest.raises(Killed):
        train("sasg", workers=M, callbacks=[SaveAndDie(path, 40)], max_steps=60)  # 40 rounds an epoch
    for process in run_processes(tmp_path, RECIPES["sasg"], rounds=60, checkpoint=path):
        assert torch.equal(process["weights"], whole.weights)
        assert counted(process["ledger"]) == counted(whole.ledger)


def test_from_real_processes(tmp_path: Path) -> None:
    """A checkpoint of three processes resumes in three processes, and in a simulation."""
    whole, path = train("sasg", workers=M, rounds=60), tmp_path / "saved.ckpt"
    with pytest.raises(Exception, match="Killed"):
        run_processes(tmp_path, RECIPES["sasg"], callbacks=[SaveAndDie(path, 40)], rounds=60)
    assert torch.equal(train("sasg", workers=M, rounds=60, checkpoint=path).weights, whole.weights)
    for process in run_processes(tmp_path, RECIPES["sasg"], rounds=60, checkpoint=path):
        assert torch.equal(process["weights"], whole.weights)


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved.ckpt"
    with pytest.raises(Killed):
        train("sparse", callbacks=[SaveAndDie(path, 15)])
    for name in ("sgd", "sasg"):
        with pytest.raises(InputError, match="the checkpoint holds"):
            train(name, checkpoint=path)


def test_another_number_of_workers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved.ckpt"
    with pytest.raises(Killed):
        train("sasg", workers=4, callbacks=[SaveAndDie(path, 15)])
    with pytest.raises(InputError, match="workers: 3; the checkpoint holds 4"):
        train("sasg", workers=3, checkpoint=path)


def test_a_run_killed_outright_goes_on(tmp_path: Path) -> None:
    """After SIGKILL at some moment, the same command gives the same history to the byte and leaves no checkpoint."""

    options = ["algorithm=sasg", f"results_dir={tmp_path}", "logger=csv", "trainer.max_epochs=4",
               "trainer.val_check_interval=20", "autosave_minutes=0"]  # fmt: skip
    killed, said = [*options, "name=killed"], tmp_path / "said.txt"
    script.train(composed([*options, "name=whole"]), options)
    process = started(killed, said)
    folder = tmp_path / "killed" / "sasg" / "seed=1"
    deadline = time.monotonic() + 120
    while not (folder / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert RunFolder(folder).is_held
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not RunFolder(folder).is_held
    assert not (folder / "summary.json").exists()
    process = started(killed, said)
    process.join()
    assert process.exitcode == 0
    resuming, complete = said.read_text().splitlines()  # and nothing else
    assert "resuming from its last checkpoint" in resuming
    assert "complete" in complete
    assert (folder / "history.csv").read_bytes() == (
        tmp_path / "whole" / "sasg" / "seed=1" / "history.csv"
    ).read_bytes()
    assert sorted(file.name for file in folder.iterdir()) == ["config.yaml", "history.csv", "split.png", "summary.json"]


PREEMPTED = ["algorithm=sasg", "logger=csv", "trainer.max_epochs=4", "trainer.val_check_interval=20"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The history of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    script.train(composed([*PREEMPTED, f"results_dir={folder}"]), PREEMPTED)
    return (folder / "local" / "sasg" / "seed=1" / "history.csv").read_bytes()


def on_round(number: int, at: int) -> Any:
    def hook(self: Any, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == at:
            os.kill(os.getpid(), number)

    return hook


@pytest.mark.parametrize(
    ("number", "hook", "round", "status"),
    [
        (signal.SIGTERM, "on_train_batch_start", 6, 143),
        (signal.SIGINT, "on_train_batch_start", 19, 130),  # an evaluation would follow
        (signal.SIGUSR1, "on_validation_batch_start", 40, 138),
        (signal.SIGUSR2, "on_train_batch_start", 30, 138),
    ],
)
def test_a_run_that_is_told_to_end_goes_on(
    number: int,
    hook: str,
    round: int,
    status: int,
    whole: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It ends after the round, or drops the evaluation, with a line, and with the exit status that the signal asks for.
    Nothing is left elsewhere, and what lies elsewhere is not read."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "job"}.items():
        monkeypatch.setenv(name, value)
    Path("hpc_ckpt_1.ckpt").write_bytes(b"of somebody else")
    config = composed([*PREEMPTED, f"results_dir={tmp_path / 'results'}"])
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, hook, on_round(number, round))
        with pytest.raises(SystemExit) as ended:
            script.train(config, PREEMPTED)
    assert ended.value.code == status
    assert signal.getsignal(number) == before
    expected = round if hook == "on_validation_batch_start" else round + 1
    said = capsys.readouterr().err
    assert f"ended by {signal.Signals(number).name} after round {expected}; the same command goes on" in said
    folder = tmp_path / "results" / "local" / "sasg" / "seed=1"
    assert (folder / "last.ckpt").exists()
    script.train(config, PREEMPTED)
    assert (folder / "history.csv").read_bytes() == whole
    assert sorted(file.name for file in folder.iterdir()) == ["config.yaml", "history.csv", "split.png", "summary.json"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"hpc_ckpt_1.ckpt", "results"}


def test_a_run_is_told_to_end_again_while_it_repeats_an_evaluation(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation is dropped once more, and the run still goes on to the same bits."""
    options = [*PREEMPTED, f"results_dir={tmp_path}"]
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "on_validation_batch_start", on_round(number, 40))
            with pytest.raises(SystemExit):
                script.train(composed(options), options)
    assert torch.load(tmp_path / "local" / "sasg" / "seed=1" / "last.ckpt", weights_only=True)["global_step"] == 40
    script.train(composed(options), options)
    assert (tmp_path / "local" / "sasg" / "seed=1" / "history.csv").read_bytes() == whole


def test_who_launched_the_run_queues_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher's own handler, such as submitit's, is called once the run is saved."""
    called: list[Any] = []
    before = signal.signal(
        signal.SIGUSR2, lambda number, frame: called.append((number, (folder / "last.ckpt").exists()))
    )
    folder = tmp_path / "local" / "sasg" / "seed=1"
    try:
        monkeypatch.setattr(Progress, "on_train_batch_start", on_round(signal.SIGUSR2, 3))
        with pytest.raises(SystemExit):
            script.train(composed([*PREEMPTED, f"results_dir={tmp_path}"]), PREEMPTED)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert called == [(signal.SIGUSR2, True)]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_job_whose_time_is_over_before_it_trains_is_queued_again(number: int, tmp_path: Path) -> None:
    """Also while it imports torch, or reads its data."""
    queue = tmp_path / "scontrol"
    queue.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "said"}\n')
    queue.chmod(0o755)
    told = "import os; from bench.suite.scripts import leaving; leaving.requeued_from_now_on(); os.kill(os.getpid(), "
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SLURM_JOB_ID": "77", "SLURM_PROCID": "0"}
    ended = subprocess.run([sys.executable, "-c", f"{told}{int(number)})"], env=environment)
    assert ended.returncode == 138
    assert (tmp_path / "said").read_text("utf-8").split() == ["requeue", "77"]


def test_a_complete_run_without_its_history_is_not_taken_for_one(tmp_path: Path, whole: bytes) -> None:
    options = [*PREEMPTED, f"results_dir={tmp_path}"]
    script.train(composed(options), options)
    (tmp_path / "local" / "sasg" / "seed=1" / "history.csv").unlink()
    with pytest.raises(InputError, match=r"history.csv: missing; summary.json says round"):
        script.train(composed(options), options)


def test_checkpoints_between_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes) -> None:
    """A run that is killed long after its last evaluation goes on from a checkpoint of a round."""
    options = [*PREEMPTED, f"results_dir={tmp_path}", "autosave_minutes=1e-7"]

    def die(self: Any, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 35:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_train_batch_start", die)
        with pytest.raises(Killed):
            script.train(composed(options), options)
    folder = tmp_path / "local" / "sasg" / "seed=1"
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 35
    script.train(composed(options), options)
    assert (folder / "history.csv").read_bytes() == whole
