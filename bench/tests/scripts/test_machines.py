"""Runs on two nodes that do not see each other's files."""

import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.suite.scripts.train import train
from bench.tests.configs import assert_same_history, composed, free_port, started, torchruns

COMMON = ["algorithm=sasg", "workers=2", "logger=csv", "name=run", "trainer.max_epochs=null", "+trainer.max_steps=60",
          "trainer.val_check_interval=10"]  # fmt: skip
NODES = ("first", "second")


def nodes(tmp_path: Path, *more: str) -> list[BaseProcess]:
    """A worker on each of two nodes, as torchrun starts them, with folders of their own."""
    port = free_port()
    here = [*COMMON, "world=processes", "+trainer.num_nodes=2", "trainer.devices=1", *more]
    return [
        started([*here, f"results_dir={tmp_path / node}"], tmp_path / f"{node}.txt", **torchruns(rank, 2, port))
        for rank, node in enumerate(NODES)
    ]


def ended(run: list[BaseProcess], tmp_path: Path) -> tuple[str, list[int | None]]:
    """What both nodes print until they end, and their exit statuses."""
    for node in run:
        node.join(100)
    told = "".join((tmp_path / f"{node}.txt").read_text() for node in NODES)
    return told, [node.exitcode for node in run]


def test_nodes_without_a_shared_disk(tmp_path: Path) -> None:
    """Rank 0 alone has the run's files, and after a preemption sends its checkpoint to the other node. The history is
    that of simulated workers, except what only real processes measure."""
    run, first = nodes(tmp_path), tmp_path / "first" / "run" / "sasg" / "seed=1"
    while not (first / "history.csv").exists() and run[0].is_alive():
        time.sleep(0.02)
    for node in run:
        assert node.pid is not None
        os.kill(node.pid, signal.SIGTERM)
    told, statuses = ended(run, tmp_path)
    assert "ended by SIGTERM after round" in told
    assert statuses == [143, 143], told
    told, statuses = ended(nodes(tmp_path, "strategy.timeout.seconds=200"), tmp_path)  # which may change
    assert "resuming from its last checkpoint" in told
    assert statuses == [0, 0], told
    assert (first / "summary.json").exists()
    assert not any(file.is_file() for file in (tmp_path / "second").rglob("*")), "what was sent is removed"
    train(composed([*COMMON, f"results_dir={tmp_path / 'simulated'}"]), COMMON)
    assert_same_history(first, tmp_path / "simulated" / "run" / "sasg" / "seed=1")
