"""A first line for whoever waits at a terminal, before imports that take seconds."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from bench.suite.scripts.command import COMMANDS
from bench.suite.scripts.waiting import QUICK, say_what_takes_long

SCRIPTS = Path(__file__).parents[3] / "scripts"
LINE = "importing torch and lightning"


def first_line(*command: str) -> str:
    """What a command prints first at a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, *command], stderr=theirs, stdout=subprocess.DEVNULL) as process:
        os.close(theirs)
        with open(ours, errors="replace") as terminal:
            line = terminal.readline()
            process.kill()
    return line


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "testbed"])
def test_it_is_said_before_the_imports(name: str) -> None:
    arguments = {"check": ["threshold"], "pay": ["data=digits"]}.get(name, [])
    assert LINE in first_line(str(SCRIPTS / f"{name}.py"), *arguments)
    assert LINE in first_line("-m", "bench.suite.scripts.command", name, *arguments)


def test_nobody_waits_for_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for argument in QUICK:
        monkeypatch.setattr(sys, "argv", ["train.py", argument])
        say_what_takes_long.__wrapped__()
    assert not capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["train.py", "algorithm=sgd"])
    say_what_takes_long.__wrapped__()
    assert LINE in capsys.readouterr().err
