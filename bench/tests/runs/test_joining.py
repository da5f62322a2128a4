"""Processes of several machines begin a run as rank 0 says."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from bench.errors import InputError, WorkerLostError
from bench.runs.joining import Joined, launched_by
from bench.suite.scripts.bare import forked


def joined(rank: int, size: int = 2, seconds: float = 20) -> Joined:
    """As torchrun would start a worker on each of two machines."""
    os.environ |= {"TORCHELASTIC_RUN_ID": "1", "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"}
    launcher = launched_by()
    assert launcher is not None
    return Joined(launcher, timedelta(seconds=seconds))


def begin(rank: int, machines: Path) -> None:
    run, mine = joined(rank), machines / str(rank) / "last.ckpt"
    assert run.told(lambda: "complete" if rank == 0 else "not asked") == "complete"
    with run.shared(lambda: None, mine) as resume:
        assert resume is None, "rank 0 has none, whatever others have"
    mine.parent.mkdir()
    mine.write_bytes(b"of round 100" if rank == 0 else b"of round 50")
    with run.shared(lambda: mine, mine) as resume:
        assert resume == mine
        assert mine.read_bytes() == b"of round 100"
    assert mine.exists() is (rank == 0)
    mine.write_bytes(b"of round 100")
    with run.shared(lambda: mine, mine):
        pass
    assert mine.exists(), "what was not sent is not removed"

    def refuse() -> None:
        raise InputError("workers: 3; the checkpoint holds 2")

    with pytest.raises(InputError, match="workers: 3"):
        run.told(refuse)
    assert not dist.is_initialized()


def fail(rank: int) -> None:
    def forbidden() -> None:
        raise PermissionError(13, "Permission denied", "results")

    with pytest.raises(InputError, match="Permission denied: 'results'"):
        joined(rank).told(forbidden)


def test_a_folder_that_rank_0_cannot_use_is_told_by_all() -> None:
    forked(2, fail)


def leave(rank: int) -> None:
    run = joined(rank)
    if rank == 0:
        with pytest.raises(WorkerLostError, match="worker 0 lost worker 1 "):
            run.told(lambda: None)


def test_who_is_lost_is_told() -> None:
    forked(2, leave)


def test_rank_0_decides_and_sends_its_checkpoint(tmp_path: Path) -> None:
    forked(2, begin, tmp_path)


def alone(rank: int) -> None:
    with pytest.raises(WorkerLostError, match="rank 0: not all 2 workers came within 1 s"):
        joined(rank, seconds=1)


def test_who_does_not_come_is_told() -> None:
    forked(1, alone)


def test_a_process_alone_has_nobody_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched_by() is None
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched_by() is None
