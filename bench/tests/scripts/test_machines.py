"""Runs under torchrun, on two nodes that do not see each other's files."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.suite.scripts.train import train
from bench.tests.configs import assert_same_history, composed

ROOT = Path(__file__).parents[3]
COMMON = ["algorithm=sasg", "workers=2", "logger=csv", "name=run", "trainer.max_epochs=null", "+trainer.max_steps=100",
          "trainer.val_check_interval=10"]  # fmt: skip


def started(tmp_path: Path, *more: str) -> list[subprocess.Popen[str]]:
    """A worker on each of two nodes, with folders of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
    run = [sys.executable, "-m", "torch.distributed.run", *rendezvous, str(ROOT / "scripts" / "train.py"), *COMMON]
    here = ["world=processes", "+trainer.num_nodes=2", "trainer.devices=1", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [
        subprocess.Popen([*run, *here, f"results_dir={tmp_path / node}"], **pipes)  # pyright: ignore[reportCallIssue, reportArgumentType]
        for node in ("first", "second")
    ]


def ended(nodes: list[subprocess.Popen[str]]) -> tuple[str, list[int]]:
    """What both nodes print until they end, and their exit statuses."""
    told = "".join(node.communicate(timeout=100)[0] for node in nodes)
    return told, [node.returncode for node in nodes]


def test_nodes_without_a_shared_disk(tmp_path: Path) -> None:
    """Rank 0 alone has the run's files, and after a preemption sends its checkpoint to the other node. The history is
    that of simulated workers, except what only real processes measure."""
    folders = [tmp_path / node / "run" for node in ("first", "second")]
    nodes = started(tmp_path)
    while not any(map(list, (folder.glob("*/*/history.csv") for folder in folders))) and nodes[0].poll() is None:
        time.sleep(0.05)
    for node in nodes:
        node.send_signal(signal.SIGTERM)
    told, statuses = ended(nodes)
    assert "ended by SIGTERM after round" in told
    assert all(statuses), told
    told, statuses = ended(started(tmp_path, "strategy.timeout.seconds=200"))  # which may change
    assert "resuming from its last checkpoint" in told
    assert statuses == [0, 0], told
    (real,) = [folder for folder in folders if list(folder.glob("*/*/summary.json"))]
    (other,) = {*folders} - {real}
    assert not any(file.is_file() for file in other.rglob("*")), "the checkpoint that was sent is removed"
    train(composed([*COMMON, f"results_dir={tmp_path / 'simulated'}"]), COMMON)
    assert_same_history(*(folder / "sasg" / "seed=1" for folder in (real, tmp_path / "simulated" / "run")))
