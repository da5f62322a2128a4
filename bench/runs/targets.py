"""What it cost a run to reach its target."""

from collections.abc import Sequence
from typing import Any

from bench.errors import InputError
from bench.runs.columns import FALLING, METRICS, Row

TARGET_COLUMNS = ("round", "uploads", "uplink_bits", "uplink_bits_paper", "total_bits", "modelled_s")


def refuse_target(metric: str, row: Row | None = None) -> None:
    """Raise InputError if there is no such metric, or if a given row of a history lacks it."""
    known = sorted({*METRICS, *FALLING})
    found = [name for name in known if row is None or row.get(name) is not None]
    if metric not in found:
        raise InputError(f"target.metric: {metric!r}; one of {', '.join(found)} is needed")


def target_reached(rows: Sequence[Row], metric: str, value: float) -> dict[str, Any]:
    """The target, and the figures of the first row whose metric is better; all None if it was missed."""
    sign = -1 if metric in FALLING else 1
    first = next((row for row in rows if row.get(metric) is not None and sign * row[metric] > sign * value), None)
    figures = {name: None if first is None else first.get(name) for name in TARGET_COLUMNS}
    return {"metric": metric, "value": value, **figures}
