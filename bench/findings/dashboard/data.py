"""Turns the results store into one tree of plain values for the page to show."""

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.findings.experiments import Experiment, experiments_in
from bench.findings.look import LOGARITHMIC, TITLES, color
from bench.findings.tables import table
from bench.findings.view import ViewedRun
from bench.link import GatherLink, ParallelLink, RingLink, ShardedLink, StarLink
from bench.runs.columns import COSTS, METRICS, Row
from bench.runs.results import RunFolder
from bench.traffic import Traffic

AXES = (*COSTS, "uplink_bits_paper", "data_passes")
LINKS = {
    "star": StarLink,
    "parallel": ParallelLink,
    "ring": RingLink,
    "sharded": ShardedLink,
    "gather": GatherLink,
}
SHOWN = (*METRICS, "train_loss", "gradient_norm", "compression_error", "bits_over_bound", "message_bits")


class Store:
    """A results folder. Experiments are read again only if their files have changed.

    Args:
        results: the folder.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._known: dict[str, tuple[str, dict[str, Any], list[str]]] = {}

    def data(self) -> dict[str, Any]:
        """All experiments, and error messages for runs and experiments that cannot be shown."""
        experiments, problems = [], []
        try:
            names = experiments_in(self.results)
        except InputError as error:
            names, problems = [], [str(error)]
        for name in names:
            fingerprint = self._fingerprint(name)
            if self._known.get(name, ("",))[0] != fingerprint:
                try:
                    self._known[name] = fingerprint, *_experiment(Experiment.read(name, self.results))
                except Exception as error:  # an error in one experiment must not hide the others
                    told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                    problems.append(f"{name}: {' '.join(told.split())}")
                    continue
            _, shown, damaged = self._known[name]
            experiments.append(shown)
            problems += [f"{name}: {told}" for told in damaged]
        prices = []
        for file in sorted(self.results.glob("pay/*/prices.json")):
            try:
                prices.append(json.loads(file.read_text("utf-8")))
            except ValueError as error:
                problems.append(f"{file}: damaged: {error}")
        titles = {column: TITLES[column] for column in (*AXES, *SHOWN)}
        return {"titles": titles, "costs": AXES, "metrics": SHOWN, "logarithmic": LOGARITHMIC,
                "experiments": experiments, "prices": prices, "problems": problems}  # fmt: skip

    def _fingerprint(self, name: str) -> str:
        """A hash that changes if a file of the experiment's runs changes, or what is heard of a run's process."""
        files = sorted(f for kind in ("config.yaml", "history.csv", "summary.json", "failed.txt")
                       for f in (self.results / name).glob(f"*/*/{kind}"))  # fmt: skip
        stats: list[Any] = [(str(file), (stat := file.stat()).st_mtime_ns, stat.st_size) for file in files]
        stats += [RunFolder(claim.parent).claim_told for claim in sorted((self.results / name).glob("*/*/run.claim"))]
        return hashlib.sha256(repr(stats).encode()).hexdigest()


def _experiment(experiment: Experiment) -> tuple[dict[str, Any], list[str]]:
    """The experiment's data for the page, and error messages for the runs left out."""
    results, arms, sound, problems = experiment.folder.parent, [], [], []
    for arm in experiment.arms:
        runs, shown_runs = list[ViewedRun](), list[dict[str, Any]]()
        for run in arm.runs:
            try:
                shown_runs.append(_run(run, results))
                runs.append(run)
            except InputError as error:
                problems.append(str(error))
        if runs:
            sound.append(arm := replace(arm, runs=runs))
            told = {"label": arm.label, "name": arm.name, "settings": arm.settings, "color": color(arm.algorithm)}
            tell = [run for run, shown in zip(runs, shown_runs, strict=True) if "traffic" in shown["history"]]
            carried = _carried(tell[0]) if tell else {"links": [], "overlaps": False, "parts": 1, "dense": False}
            arms.append({**told, **carried, "runs": shown_runs})
    if not sound:
        raise InputError("; ".join(problems))
    experiment = replace(experiment, arms=sound)
    target = sound[0].runs[0].config().get("target")
    shown = _table(experiment) if experiment.complete else None
    return {"name": experiment.name, "target": target, "arms": arms, "table": shown}, problems


def _run(run: ViewedRun, results: Path) -> dict[str, Any]:
    rows = run.history()
    columns = [name for name in (*AXES, *SHOWN, "skips", "num_backwards") if any(row[name] is not None for row in rows)]
    history = {name: [row[name] for row in rows] for name in columns}
    if rows and rows[-1]["answers"] is not None:
        history["traffic"] = [_traffic(row) for row in rows]
    state, told = run.state()
    return {
        "seed": run.config()["seed"],
        "status": "diverged" if state == "complete" and told else state,
        "told": told,
        "path": run.path.relative_to(results).as_posix(),
        "history": history,
        "written": max(file.stat().st_mtime for file in run.files()),
        "target_round": run.target()["round"] if state == "complete" else None,
    }


def _traffic(row: Row) -> dict[str, Any] | None:
    """What the seconds of a row follow from; of the workers only what a star charges, all but the first."""
    if (traffic := Traffic.of(row)) is None:
        return None
    sums = {name: value for name, value in vars(traffic).items() if not isinstance(value, list)}
    star = {"star_bits": sum(traffic.worker_bits[1:]), "star_messages": sum(traffic.worker_messages[1:])}
    return {"workers": traffic.num_workers, **star, **sums}


def _carried(run: ViewedRun) -> dict[str, Any]:
    """Which links carry a run's messages, and what else its seconds depend on."""
    recipe, links = run.algorithm, list[str]()
    for name, link in LINKS.items():
        with suppress(InputError):
            link().refuse(recipe)
            links.append(name)
    dense = recipe.is_dense and run.num_parts == 1
    return {"links": links, "overlaps": recipe.overlaps, "parts": run.num_parts, "dense": dense}


def _table(experiment: Experiment) -> dict[str, Any]:
    """The experiment's table; each cell is its text and the value to sort by."""
    asked = experiment.spec.get("table") or {}
    shown = table(experiment)
    columns = [{"key": c.key, "title": c.title, "name": c.style == "name"} for c in shown.columns]
    rows = [[[shown.text(row, c), shown.number(row, c)] for c in shown.columns] for row in shown.rows]
    at = "end" if asked.get("kind") == "sweep" else asked.get("at", "target")
    return {"at": at, "caption": shown.caption, "columns": columns, "rows": rows}
