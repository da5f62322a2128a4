"""Simulated and real workers run the same code and give bit-identical results."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from bench.adversary import Random
from bench.errors import NonFiniteError, WorkerLostError
from bench.laws.toys import Normed, Toy, train
from bench.laws.worlds import Hang, M, run_processes
from bench.runs.autosave import Autosave
from bench.tests.found import RECIPES


def test_noise_is_the_same_in_both_worlds(tmp_path: Path) -> None:
    """Dropout draws by (seed, round, rank), so both worlds agree even for a module that needs the loop engine."""
    noisy = run_processes(tmp_path, RECIPES["sasg"], lambda: Toy(dropout=0.3))
    assert torch.equal(noisy[0]["weights"], train("sasg", lambda: Toy(dropout=0.3), workers=M).weights)
    assert not torch.equal(noisy[0]["weights"], train("sasg", workers=M).weights)


def test_byzantine_workers_lie_alike_in_both_worlds(tmp_path: Path) -> None:
    adversary = Random(num_byzantine=1)
    simulated = train("sparse", workers=M, adversary=adversary)
    for process in run_processes(tmp_path, RECIPES["sparse"], adversary=adversary):
        assert torch.equal(process["weights"], simulated.weights)
    assert not torch.equal(simulated.weights, train("sparse", workers=M).weights)


def test_half_precision(tmp_path: Path) -> None:
    """Autocast caches casts of the weights; those of one worker's stale weights must not be used for another worker."""
    simulated = train("lasg", workers=M, precision="bf16-mixed")
    assert simulated.ledger["num_backwards"] > 30 * M
    for process in run_processes(tmp_path, RECIPES["lasg"], trainer_options={"precision": "bf16-mixed"}):
        assert torch.equal(process["weights"], simulated.weights)


def test_batch_norm_is_each_workers_own(tmp_path: Path) -> None:
    """In both worlds each worker has its own running statistics, unchanged by stale passes and averaged at the end."""
    simulated = train("sasg", Normed, workers=M)
    for process in run_processes(tmp_path, RECIPES["sasg"], Normed):
        assert torch.equal(process["weights"], simulated.weights)
        for name, buffer in simulated.module.named_buffers():
            torch.testing.assert_close(process["buffers"][name], buffer)
    assert simulated.ledger["num_backwards"] > 30 * M, "this test needs stale passes"
    assert simulated.module.network[1].num_batches_tracked == 30


def test_frozen_layers_are_shared(tmp_path: Path) -> None:
    """Every worker ends with the frozen parameters of rank 0, whatever its own were at the start."""

    class Drifting(Toy):
        def setup(self, stage: str) -> None:
            frozen = self.get_submodule("network.0").requires_grad_(False)
            frozen.get_parameter("bias").data.fill_(self.trainer.global_rank)

    for process in run_processes(tmp_path, RECIPES["sgd"], Drifting, rounds=3):
        assert torch.equal(process["frozen"], torch.zeros(16))


class Poison(Callback):
    """Fills worker 1's batch of round 5 with NaN."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 5 and trainer.global_rank == 1:
            batch[0].fill_(torch.nan)


def test_a_broken_gradient_ends_every_process(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="round 5: worker 1") as raised:
        run_processes(tmp_path, RECIPES["sasg"], callbacks=[Poison()])
    assert NonFiniteError.__name__ in str(raised.value)


def test_a_full_disk_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If rank 0 cannot save, it reports this and all processes go on. No partial checkpoint is left."""

    class Often(Autosave):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step % 10 == 0:
                self.on_validation_end(trainer, pl_module)

    def full(file: int) -> None:
        (tmp_path / "tried").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.runs.whole.os.fsync", full)
    save, simulated = Often(tmp_path / "last.ckpt", timedelta(0)), train("sasg", workers=M)
    for process in run_processes(tmp_path, RECIPES["sasg"], callbacks=[save], timeout=timedelta(seconds=20)):
        assert torch.equal(process["weights"], simulated.weights)
    assert (tmp_path / "tried").exists()
    assert not list(tmp_path.glob("last.*"))


class Told(Callback):
    """Rank 2 is told to end in round 7."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.global_rank, batch_idx) == (2, 7):
            os.kill(os.getpid(), signal.SIGTERM)


def test_processes_that_are_told_to_end_save_together(tmp_path: Path) -> None:
    save = Autosave(tmp_path / "last.ckpt", timedelta(hours=1))
    with pytest.raises(Exception, match="round 8: told to end"):
        run_processes(tmp_path, RECIPES["sasg"], callbacks=[Told(), save])
    saved = torch.load(tmp_path / "last.ckpt")["bitbudget"]["cohort"]
    assert saved["ledger"]["rounds"] == 8
    assert len(saved["workers"]["rows"]["kept"]) == M


def test_a_lost_worker_ends_the_run_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Exception, match="timeout 3 s") as raised:
        run_processes(tmp_path, RECIPES["sgd"], callbacks=[Hang()], timeout=timedelta(seconds=3))
    assert WorkerLostError.__name__ in str(raised.value)
    assert time.monotonic() - started < 30
