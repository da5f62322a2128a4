"""The figure of an experiment, as its file describes it.

Each algorithm has one colour in all figures; its variants differ in line style. Lines are means over seeds, or medians
where an experiment's file asks for them; bands reach from the lowest seed to the highest; a dotted line is the target.
The rest of the style is in paper.mplstyle.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from bench.errors import InputError
from bench.findings.asked import made, refuse
from bench.findings.curves import curves
from bench.findings.experiments import Experiment
from bench.findings.paper import LOOK
from bench.findings.sweeps import sweep
from bench.findings.tradeoff import tradeoff
from bench.runs.columns import Row
from bench.traffic import Traffic

TRAFFIC = tuple(field.name for field in fields(Traffic))
UNDRAWN = ("waited_s", "compute_s", "compression_s", "sent_bytes", "received_bytes", *TRAFFIC)
"""Columns that no figure shows."""
KINDS = {"curves": curves, "sweep": sweep, "tradeoff": tradeoff}


def refuse_figure(spec: Mapping[str, Any]) -> None:
    """Check the figure that an experiment's file asks for, as far as can be seen without runs.

    Raises:
        InputError: its kind or an option is unknown, or an option is missing.
    """
    if asked := spec.get("figure"):
        refuse("figure", asked, KINDS)


def figure(experiment: Experiment) -> Figure:
    """Draw the figure that an experiment's file describes under `figure:`.

    Raises:
        InputError: the file describes no figure, or one that cannot be drawn.
    """
    if not (asked := experiment.spec.get("figure")):
        raise InputError(f"experiment: {experiment.name!r}; its file needs a figure: entry")
    with matplotlib.style.context(LOOK):
        return made("figure", asked, KINDS, experiment.complete)


def digest(experiment: Experiment) -> str:
    """A hash of everything that a figure depends on: its description, and the data of the runs that figures draw.
    Columns without a value are left out, so that a new one changes nothing."""

    def drawn(rows: Sequence[Row]) -> list[Row]:
        there = [{name: value for name, value in row.items() if value is not None} for row in rows]
        return [{name: value for name, value in row.items() if name not in UNDRAWN} for row in there]

    shown = [
        [arm.label, [[drawn(run.history()), run.summary().get("diverged")] for run in arm.runs]]
        for arm in experiment.complete
    ]
    return hashlib.sha256(json.dumps([experiment.spec["figure"], shown]).encode()).hexdigest()
