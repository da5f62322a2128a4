"""The figure of who skips when: the share of workers that kept still, over epochs, on several networks side by side.

It belongs to no experiment: each panel shows the lazy arms of the first of its experiments that has any.
"""

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bench.errors import InputError
from bench.findings.experiments import Arm, Experiment, experiments_in
from bench.findings.look import color
from bench.findings.paper import LOOK
from bench.findings.view import ViewedRun
from bench.rules import Always

PANELS = {
    "FC-MNIST": ("sasg_mnist",),
    "ResNet20, CIFAR-10": ("resnet20_cifar10_full", "resnet20_cifar10"),
    "ResNet18, CIFAR-10": ("sasg_cifar10",),
    "ResNet20, CIFAR-100": ("resnet20_cifar100",),
    "ResNet18, CIFAR-100": ("sasg_cifar100",),
}


def lazy(results: Path) -> dict[str, list[Arm]]:
    """The lazy arms that have complete runs, by the titles of panels; without runs that diverged or do not tell."""
    there, found = experiments_in(results), dict[str, list[Arm]]()
    for title, names in PANELS.items():
        for experiment in (Experiment.read(name, results) for name in names if name in there):
            arms = [_sound(arm) for arm in experiment.complete if arm.runs[0].algorithm.rule != Always()]
            if arms := [arm for arm in arms if arm.runs]:
                found[title] = arms
                break
    return found


def _sound(arm: Arm) -> Arm:
    ended = [run for run in arm.runs if "diverged" not in run.summary()]
    return Arm(arm.label, [run for run in ended if run.history()[-1]["skips"] is not None])


def shares(run: ViewedRun) -> tuple[np.ndarray, np.ndarray]:
    """The epochs at which a run was evaluated, and the share of uploads skipped since the evaluation before."""
    rows, last = run.history(), run.summary()
    start = {"round": 0, "skips": [0]}
    epochs = np.array([row["round"] for row in rows]) * (last["epoch"] + 1) / last["round"]
    skipped = [
        (sum(row["skips"]) - sum(before["skips"])) / (len(row["skips"]) * (row["round"] - before["round"]))
        for before, row in pairwise([start, *rows])
    ]
    return epochs, np.array(skipped)


def drawing(panels: dict[str, list[Arm]]) -> Figure:
    """Draw a panel for each title, each of its own scale. Bands reach from the lowest seed to the highest; dots mark
    where the learning rate falls.

    Raises:
        InputError: there is no panel.
    """
    if not panels:
        given = ", ".join(name for names in PANELS.values() for name in names)
        raise InputError(f"skips: no complete run of a lazy arm; one is needed, of {given}")
    with matplotlib.style.context(LOOK):
        figure = Figure(figsize=(2.4 * len(panels) + 0.6, 2.3), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)
        for axes, (title, arms) in zip(grid[0], panels.items(), strict=True):
            for arm in arms:
                runs = [shares(run) for run in arm.runs]
                epochs, values, shade = runs[0][0], np.array([share for _, share in runs]), color(arm.algorithm)
                axes.plot(epochs, values.mean(axis=0), color=shade, label=arm.name)
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=shade, alpha=0.15, linewidth=0)
            for milestone in (arms[0].runs[0].config().get("schedule") or {}).get("milestones", []):
                axes.axvline(milestone, color="#777777", linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1)
            axes.set(title=f"{title} ({_seeds(arms)})", xlabel="epochs", xlim=(0, None))
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.legend(loc="upper left")
        grid[0][0].set_ylabel("uploads skipped")
    return figure


def _seeds(arms: Sequence[Arm]) -> str:
    counts = sorted({len(arm.runs) for arm in arms})
    return "one seed" if counts == [1] else f"{'–'.join(map(str, counts))} seeds"


def digest(panels: dict[str, list[Arm]]) -> str:
    """A hash of what the figure shows."""
    shown = {
        title: [[arm.label, [[values.tolist() for values in shares(run)] for run in arm.runs]] for arm in arms]
        for title, arms in panels.items()
    }
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()
