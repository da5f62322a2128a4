"""Tells whoever waits at a terminal what takes so long: torch and Lightning take seconds to import."""

import os
import sys
from functools import cache

QUICK = {"-h", "--help", "-c", "--cfg", "-i", "--info", "-p", "--package", "--hydra-help", "-sc", "--shell-completion"}
"""Arguments with which a command only tells of itself, to a shell for example."""


@cache
def say_what_takes_long() -> None:
    """Print a line on stderr, once and in one process of a run, if that is a terminal and torch is not imported yet."""
    follows = os.environ.get("LOCAL_RANK", "0") != "0"
    if sys.stderr.isatty() and not follows and "torch" not in sys.modules and not QUICK & set(sys.argv[1:]):
        print("importing torch and lightning, some seconds", file=sys.stderr)
