"""The files of a run, read back: what is damaged is refused in one line that names the file."""

import csv
import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.errors import InputError
from bench.runs.columns import BY_WORKER, COLUMNS, COSTS, Row, total_bits

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where available: hundreds of configs are read


def read_config(file: Path) -> dict[str, Any]:
    """The config in config.yaml.

    Raises:
        InputError: the file holds no config.
    """
    with _readable(file):
        if not isinstance(config := yaml.load(file.read_text("utf-8"), LOADER), dict):
            raise ValueError("no config")
        _refuse_size(config)
        return config


def read_rows(file: Path) -> list[Row]:
    """The rows of history.csv. Columns that an older version did not write are None.

    Raises:
        InputError: the file is damaged, or has columns that this version does not know.
    """
    with _readable(file), file.open(encoding="utf-8", newline="") as lines:
        found = csv.DictReader(lines)
        if "" in (found.fieldnames or [""]):
            raise ValueError("a heading is empty")
        if unknown := set(found.fieldnames or ()) - set(COLUMNS):
            known = ", ".join(COLUMNS)
            raise InputError(f"{file}: unknown column {', '.join(sorted(unknown))}; this version has {known}")
        rows = [dict.fromkeys(COLUMNS) | _cells(row, number) for number, row in enumerate(found, start=1)]
        _refuse_impossible(rows)
    for row in rows:
        if row["total_bits"] is None and row["uplink_bits"] is not None:
            row["total_bits"] = total_bits(row)
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """The contents of history.csv, which `read_rows` reads."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list[str](COLUMNS), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        lists = {name: " ".join(map(str, row.get(name) or ())) for name in BY_WORKER}
        writer.writerow({**row, **lists})
    return text.getvalue()


def read_summary(file: Path) -> dict[str, Any]:
    """The contents of summary.json.

    Raises:
        InputError: the file is damaged.
    """
    with _readable(file):
        if not isinstance(summary := json.loads(file.read_text("utf-8")), dict):
            raise ValueError("no summary")
        if missing := {"round", "target"} - summary.keys():
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        if not isinstance(target := summary["target"], dict) or not isinstance(target.get("metric"), str):
            raise ValueError(f"target: {target!r}; a metric and a value are needed")
        if not isinstance(downlink := summary.get("downlink") or "", str):
            raise ValueError(f"downlink: {downlink!r}; the name of a code is needed")
        return summary


def damage_of(checkpoint: Path) -> str | None:
    """Why a checkpoint is none of a run; None if it is one."""
    import torch

    try:
        with zipfile.ZipFile(checkpoint) as archive:
            if damaged := archive.testzip():
                return damaged
    except zipfile.BadZipFile as error:
        return str(error)
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # many kinds
        return " ".join(str(error).split())
    needed = ("state_dict", "loops", "optimizer_states", "callbacks", "bitbudget")
    missing = [name for name in needed if not isinstance(content, dict) or name not in content]
    return f"it has no {', '.join(missing)}" if missing else None


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Raise InputError, naming the file, if it cannot be parsed."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{file}: missing, restore it or remove the run") from None
    except (ValueError, TypeError, RecursionError, csv.Error, yaml.YAMLError) as error:
        raise InputError(f"{file}: damaged, restore it or remove the run: {' '.join(str(error).split())}") from error


def _refuse_impossible(rows: Sequence[Row]) -> None:
    """Raise ValueError if rows cannot be those of a run: rounds are whole, costs do not fall, accuracies are shares."""
    before: Row = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row["round"], int):
            raise ValueError(f"row {number}: round: {row['round']}; a whole number is needed")
        for name in COSTS:  # equal ones are possible: two rows of threads may fall into one round
            value, last = row[name], before.get(name)
            if value is not None and value < (last or 0):
                raise ValueError(f"row {number}: {name}: {value}; at least {last or 0} is needed, as before")
        for name, value in row.items():
            if name.endswith("_accuracy") and value is not None and not (0 <= value <= 1 or math.isnan(value)):
                raise ValueError(f"row {number}: {name}: {value}; a share between 0 and 1 is needed")
        before = row


def _refuse_size(config: Any, most: int = 100_000) -> None:
    """Raise ValueError if a config has more entries than any of ours: aliases can make a short file a huge one."""
    waiting, seen = [config], 0
    while waiting:
        node = waiting.pop()
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        waiting += children
        if (seen := seen + 1) > most:
            raise ValueError(f"more than {most:,} entries")


def _cells(row: dict[Any, Any], number: int) -> Row:
    """A row of history.csv, whose texts have become numbers."""
    if None in row or None in row.values():
        raise ValueError(f"row {number} has {'more' if None in row else 'fewer'} cells than the heading")
    return {name: _cell(name, text) for name, text in row.items()}


def _cell(name: str, text: str) -> Any:
    """A cell of history.csv: an integer, a float, None where empty; a list where there is one number per worker."""
    if not text:
        return None
    if name in BY_WORKER:
        return [int(part) for part in text.split()]
    value = int(text) if text.lstrip("-").isdigit() else float(text)
    if name in COSTS and not math.isfinite(value):
        raise ValueError(f"{name}: {text}; a number is needed")
    return value
