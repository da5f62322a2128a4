"""What captions of tables say of an experiment's runs."""

from collections.abc import Sequence

from bench.findings.experiments import Arm, Experiment


def num_seeds(arms: Sequence[Arm]) -> str:
    """The number of runs per recipe, as a range if recipes differ."""
    counts = sorted({len(arm.runs) for arm in arms})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def absent(experiment: Experiment) -> str:
    """The runs of the grid that are not there, what makes them, and how long that takes."""
    if not (missing := experiment.missing):
        return ""
    hours = experiment.spec.get("hours") or {}
    took = sum(hours[label] * number for label, number in missing.items()) if missing.keys() <= hours.keys() else None
    told = "" if took is None else f", about {took:,.0f} hours of a core"
    runs = f"{sum(missing.values())} of {sum(experiment.grid.values())} runs"
    return f" Not run: {runs}; python scripts/matrix.py experiment={experiment.name} makes them{told}."
