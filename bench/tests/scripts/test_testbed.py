"""A shaped network is built, used and taken down whole; where the system allows none, the reason is told in a line."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.suite.scripts import forecast, namespaces
from bench.suite.scripts.launching import run
from bench.suite.scripts.namespaces import Testbed, refusal
from bench.suite.scripts.validation import compare

ROOT = Path(__file__).parents[3]
REASON = refusal()
needs_network = pytest.mark.skipif(REASON is not None, reason=str(REASON))
NAME = f"bitbudget{os.getpid()}"


def there(name: str = NAME) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(f"{name}-")]


@needs_network
def test_it_stands_and_falls() -> None:
    """Every link has its bucket at both ends; after an error nothing is left."""

    def look() -> None:
        with Testbed(3, 1e8, NAME) as bed:
            assert sorted(there()) == [f"{NAME}-0", f"{NAME}-1", f"{NAME}-2", f"{NAME}-switch"]
            for rank in range(3):
                for place, device in ((bed.host(rank), "eth0"), (f"{NAME}-switch", f"port{rank}")):
                    command = ["tc", "-n", place, "qdisc", "show", "dev", device]
                    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    assert "tbf" in shown
                    assert "rate 100Mbit" in shown
            raise KeyError

    with pytest.raises(KeyError):
        look()
    assert not there()


@needs_network
def test_workers_meet_over_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One node a namespace under torchrun; the first worker's output; a failing worker's status, and nothing left."""
    script = tmp_path / "meet.py"
    script.write_text(
        "import sys, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "total = torch.ones(1); dist.all_reduce(total)\n"
        "print('met', int(total), dist.get_rank())\n"
        "dist.destroy_process_group()\n"
        "sys.exit(3)\n"
    )
    assert run(Testbed(2, 1e8, NAME), [str(script)]) == 1  # torchrun's
    assert "met 2 0" in capfd.readouterr().out
    assert not there()


@needs_network
def test_it_is_taken_down_when_it_is_told_to_end(tmp_path: Path) -> None:
    script = tmp_path / "sleep.py"
    script.write_text("import time; print('asleep', flush=True); time.sleep(60)\n")
    command = [sys.executable, str(ROOT / "scripts" / "testbed.py"), "run", "2", "100Mbit", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "asleep"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert not there(namespaces.NAME)


def test_what_cannot_be_built_is_told() -> None:
    for workers, bandwidth, said in ((0, 1e8, "workers: 0"), (65, 1e8, "1 to 64"), (2, 10.0, "bandwidth: 10 bit/s")):
        with pytest.raises(InputError, match=said):
            Testbed(workers, bandwidth)


def test_without_iproute_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert refusal() == "ip and tc: not installed; iproute2 has them"


def test_the_committed_table_is_that_of_the_measurements(tmp_path: Path) -> None:
    measured = ROOT / "results" / "testbed"
    (tmp_path / "measured.json").write_bytes((measured / "measured.json").read_bytes())
    assert compare(tmp_path).markdown() == (measured / "table.md").read_text()
    shutil.copytree(measured / "forecast", tmp_path / "forecast")
    assert forecast.compare(tmp_path).markdown() == (measured / "forecast" / "table.md").read_text()
