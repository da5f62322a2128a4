"""The `bitbudget` command: every script by its name, as in `bitbudget train algorithm=sasg data=mnist`."""

import ast
import importlib
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from bench.suite.scripts.waiting import say_what_takes_long

COMMANDS = (
    "train", "matrix", "tune", "tables", "figures", "claims", "dashboard", "sync", "pay", "benchmark", "testbed",
    "check",
)  # fmt: skip


def main() -> None:
    """Run the script that the first argument names, with the others; or show what there is."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
    elif name == "--version":
        print(f"bitbudget {version('bitbudget')}")
    elif name not in COMMANDS:
        print(f"error: {name!r}; one of {', '.join(COMMANDS)} is needed", file=sys.stderr)
        sys.exit(2)
    else:
        # As if the script itself had been started: processes of a run start it again.
        sys.argv = [str(files("bench.suite.scripts") / f"{name}.py"), *arguments]
        if name != "testbed":  # which imports neither torch nor Lightning
            say_what_takes_long()
        script = importlib.import_module(f"bench.suite.scripts.{name}")
        script.__doc__ = as_commands(script.__doc__ or "")
        sys.exit(script.main())


def as_commands(text: str) -> str:
    """A text with `python scripts/train.py` as `bitbudget train`."""
    return re.sub(r"python scripts/(\w+)\.py", r"bitbudget \1", text)


def overview() -> str:
    """Every command, group of configs and experiment, in a line each. Imports none of them: it takes no time."""
    told = [(name, _first_sentence(files("bench.suite.scripts") / f"{name}.py")) for name in COMMANDS]
    configs = files("bench.suite.configs")
    groups = [
        (folder.name, ", ".join(_names(folder)))
        for folder in sorted(configs.iterdir(), key=lambda entry: entry.name)
        if folder.is_dir() and folder.name not in ("experiment", "__pycache__")
    ]
    experiments = [
        (name, _first_comment(configs / "experiment" / f"{name}.yaml")) for name in _names(configs / "experiment")
    ]
    return "\n".join(
        [
            "bitbudget: communication-efficient distributed training, every bit counted.",
            "\nCommands (bitbudget COMMAND --help):",
            *_columns(told),
            "\nGroups of configs (bitbudget train GROUP=NAME):",
            *_columns(groups),
            "\nExperiments (bitbudget matrix experiment=NAME):",
            *_columns(experiments),
        ]
    )


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name:{width}}  {told}" for name, told in rows]


def _names(folder: Any) -> list[str]:
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def _first_sentence(script: Any) -> str:
    return (ast.get_docstring(ast.parse(script.read_text("utf-8"))) or "").split("\n")[0]


def _first_comment(config: Any) -> str:
    lines = [line[2:] for line in config.read_text("utf-8").splitlines() if line.startswith("# ")]
    return re.split(r"(?<=\.) |: ", " ".join(line for line in lines if not line.startswith("@")))[0].rstrip(".")


if __name__ == "__main__":
    main()
