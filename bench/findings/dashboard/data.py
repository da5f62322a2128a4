"""Turns the results store into one tree of plain values for the page to show."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import InputError
from bench.findings.dashboard.about import about, problem
from bench.findings.experiments import Experiment, experiments_in
from bench.findings.look import GREYS, LOGARITHMIC, PALETTES, TITLES, shortest
from bench.findings.table import Table
from bench.findings.tables import further_tables, table
from bench.findings.tuning import Tuned
from bench.findings.view import ViewedRun
from bench.link import DirectLink, GatherLink, ParallelLink, RingLink, ShardedLink, StarLink
from bench.runs.columns import COSTS, FALLING, METRICS, Row
from bench.runs.results import RunFolder
from bench.traffic import Traffic

AXES = (*COSTS, "uplink_bits_paper", "data_passes")
LINKS = {
    "star": StarLink,
    "parallel": ParallelLink,
    "ring": RingLink,
    "direct": DirectLink,
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
        self._known: dict[str, _Read] = {}
        self._changes = count(1)

    def data(self) -> dict[str, Any]:
        """Everything that the page shows: the index, and all experiments as `loaded`, by name."""
        for name in self._names()[0]:
            self.read(name)
        loaded = {name: found for name in self._names()[0] if (found := self.experiment(name))}
        return {**self.index(), "loaded": loaded}

    def index(self) -> dict[str, Any]:
        """What there is, without reading it: experiments with what the overview tells of them, where it is known and
        up to date; and error messages for runs and experiments that cannot be shown."""
        experiments, (names, problems) = [], self._names()
        for name in names:
            version, read = self._fingerprint(name), self._known.get(name)
            known = read if read and read.version == version else None
            if known is None or known.shown:
                experiments.append({"name": name, "version": version, "about": read.about if read else None})
            problems += [f"{name}: {told}" for told in (known.problems if known else ())]
        prices = []
        for file in sorted(self.results.glob("pay/*/prices.json")):
            try:
                prices.append(json.loads(file.read_text("utf-8")))
            except ValueError as error:
                problems.append(f"{file}: damaged: {error}")
        titles = {column: TITLES[column] for column in (*AXES, *SHOWN)}
        kinds = {"costs": AXES, "metrics": SHOWN, "logarithmic": LOGARITHMIC, "falling": FALLING}
        found = {"experiments": experiments, "prices": prices, "problems": problems}
        return {"titles": titles, "colors": PALETTES, "greys": GREYS, **kinds, **found}

    def experiment(self, name: str, since: int = 0) -> dict[str, Any] | None:
        """An experiment as last read; None if there is no such, or if it cannot be shown.

        Args:
            since: the `change` of what the page has: runs that have not changed since come without their history.
        """
        known = self._known.get(name)
        if known is None or known.shown is None:
            return None
        arms = [{**arm, "runs": [run if run["change"] > since else {**run, "history": None} for run in arm["runs"]]}
                for arm in known.shown["arms"]]  # fmt: skip
        return {**known.shown, "arms": arms}

    def read(self, name: str) -> None:
        """Read an experiment, unless none of its files has changed since."""
        version, known = self._fingerprint(name), self._known.get(name)
        if known and known.version == version:
            return
        try:
            shown, told, problems = _experiment(Experiment.read(name, self.results))
        except Exception as error:  # an error in one experiment must not hide the others
            told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._known[name] = _Read(version, None, None, [" ".join(told.split())])
            return
        before = (
            {run["path"]: run for arm in (known.shown or {"arms": []})["arms"] for run in arm["runs"]} if known else {}
        )
        change = next(self._changes)
        for run in (run for arm in shown["arms"] for run in arm["runs"]):
            old = before.get(run["path"], {})
            run["change"] = old["change"] if old.get("history") == run["history"] else change
        self._known[name] = _Read(version, {**shown, "change": change}, told, problems)

    def _names(self) -> tuple[list[str], list[str]]:
        """Names of the experiments, and what is wrong with the folder."""
        try:
            return experiments_in(self.results), []
        except InputError as error:
            return [], [str(error)]

    def _fingerprint(self, name: str) -> str:
        """A hash that changes if a file of the experiment's runs changes, or what is heard of a run's process."""
        files = sorted(f for kind in ("config.yaml", "history.csv", "summary.json", "failed.txt")
                       for f in (self.results / name).glob(f"*/*/{kind}"))  # fmt: skip
        stats = list[Any]()
        for file in files:
            with suppress(FileNotFoundError):  # removed in the meantime
                stats.append((str(file), (stat := file.stat()).st_mtime_ns, stat.st_size))
        stats += [RunFolder(claim.parent).claim_told for claim in sorted((self.results / name).glob("*/*/run.claim"))]
        return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


class _Read(NamedTuple):
    """An experiment as read: the version of its files, its data (None if it cannot be shown), what the overview tells
    of it, and error messages."""

    version: str
    shown: dict[str, Any] | None
    about: dict[str, Any] | None
    problems: list[str]


def _experiment(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The experiment's data for the page, what the overview tells, and error messages for the runs left out."""
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
            settings = {key: shortest(value) for key, value in arm.settings.items()}
            told = {"label": arm.label, "name": arm.name, "settings": settings, "problem": problem(arm)}
            config = arm.runs[0].config()
            told |= {"batch": (config.get("data") or {}).get("batch_size"), "recipe": arm.algorithm}
            tell = [run for run, shown in zip(runs, shown_runs, strict=True) if "traffic" in shown["history"]]
            carried = _carried(tell[0]) if tell else {"links": [], "overlaps": False, "parts": 1, "dense": False}
            arms.append({**told, **carried, "runs": shown_runs})
    if not sound:
        raise InputError("; ".join(problems))
    experiment = replace(experiment, arms=sound)
    target = experiment.spec.get("target") or sound[0].runs[0].config().get("target")
    made = table(experiment) if experiment.complete else None
    tuned = Tuned.asked(experiment.spec)
    best = {arm.label for arm in tuned.best(experiment.complete)} if tuned else set[str]()
    for arm in arms:
        arm["best"] = arm["label"] in best
    shown = _table(experiment, made) if made else None
    figure = (experiment.spec.get("figure") or {}).get("x", [])
    asked = {
        "target": target,
        "tuned": tuned and tuned._asdict(),
        "figure": [figure] if isinstance(figure, str) else figure,
    }
    try:
        further = further_tables(experiment) if experiment.complete else {}
    except InputError as error:
        further, problems = {}, [*problems, f"{experiment.name}: {error}"]
    data = {"name": experiment.name, **asked, "arms": arms, "table": shown}
    data["further"] = [{"name": key, **_cells(other)} for key, other in further.items()]
    return data, about(experiment, made), problems


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
        "target_round": _target_round(run, rows),
    }


def _target_round(run: ViewedRun, rows: Sequence[Row]) -> int | None:
    """The round in which the target was reached, also if the run goes on; None if it was not, or if there is none.

    Raises:
        InputError: a complete run has no such metric.
    """
    if not rows or not (run.aim or run.config().get("target")):
        return None
    try:
        return run.target()["round"]
    except InputError:
        if run.is_complete:
            raise
        return None  # not evaluated yet


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
    return {"links": links, "overlaps": recipe.overlaps, "passes": run.passes, "dense": dense}


def _table(experiment: Experiment, made: Table) -> dict[str, Any]:
    """The experiment's table; each cell is its text and the value to sort by."""
    asked = experiment.spec.get("table") or {}
    at = "end" if asked.get("kind") == "sweep" else asked.get("at", "target")
    return {"at": at, "main": made.main, **_cells(made)}


def _cells(made: Table) -> dict[str, Any]:
    columns = [{"key": c.key, "title": c.title, "name": c.style == "name"} for c in made.columns]
    rows = [[[made.text(row, c), made.number(row, c), row.get("best") == c.key] for c in made.columns]
            for row in made.rows]  # fmt: skip
    texts = {"md": made.markdown(), "tex": made.latex(), "csv": made.csv()}
    return {"caption": made.caption, "title": made.title, "columns": columns, "rows": rows, "texts": texts}
