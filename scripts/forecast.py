"""Holds forecasts of times to an accuracy against training on a shaped network, for `scripts/testbed.py forecast`."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from bench.errors import InputError
from bench.findings.elapsed import elapsed
from bench.findings.table import Column, Table
from bench.findings.view import ViewedRun
from bench.link import GatherLink, LinkModel, ShardedLink
from bench.runs.columns import Row
from bench.runs.results import RunFolder
from scripts.launching import run
from scripts.namespaces import Testbed
from scripts.validation import Host, crowd, host_of

WORKERS, BANDWIDTHS, RECIPES = 4, (1e8, 1e9), ("sgd", "half", "sparse", "sasg")
ACCURACY, RATE, ROUNDS, EVERY, CALIBRATED = 0.95, 0.2, 1000, 25, 75
WALL = ("compute_s", "compression_s", "waited_s", "measured_s")


def forecast(out: Path) -> Table:
    """Train, forecast, and compare. The histories of the runs that were measured are kept.

    Raises:
        InputError: a run failed.
    """
    host = host_of(out)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for recipe in tqdm(RECIPES, unit="recipe"):
            simulated = _train(folder, recipe, "simulated")
            unshaped = _train(folder, recipe, "unshaped", None)
            for bps in BANDWIDTHS:
                run = _train(folder, recipe, f"{bps / 1e6:.0f} Mbit", bps)
                kept = out / f"{recipe}, {bps / 1e6:.0f} Mbit.csv"
                shutil.copy(run.path / "history.csv", kept)
                rows.append(_compared(recipe, bps, run, simulated, unshaped, host))
    columns = [
        Column("recipe", "recipe", "name"), Column("links", "links", "name"),
        Column("collective", "carried by", "name"), Column("rounds", "rounds", "count"),
        Column("measured", "measured s", "seconds"), Column("forecast", "forecast s", "seconds"),
        Column("error", "error %", "seconds"),
    ]  # fmt: skip
    caption = (
        f"Seconds to {ACCURACY:.0%} test accuracy on FC-MNIST, {WORKERS} workers, evaluations left out: measured on "
        "shaped links; forecast from a simulated run, compute and own work as measured on the same links unshaped, and "
        "the model with the host's constants."
    )
    table = Table(caption, columns, rows)
    table.write(out / "forecast")
    return table


def _train(folder: Path, recipe: str, name: str, bps: float | None = 0) -> RunFolder:
    """Train on such links; in a simulation if `bps` is 0."""
    rounds = CALIBRATED if bps is None else ROUNDS
    command = [
        str(Path(__file__).with_name("train.py")), f"algorithm={recipe}", "data=mnist", f"workers={WORKERS}",
        f"optimizer.lr={RATE}", f"name={name}", f"++trainer.max_steps={rounds}", f"trainer.val_check_interval={EVERY}",
        f"target.value={ACCURACY}", "logger=csv", f"results_dir={folder}",
    ]  # fmt: skip
    if bps == 0:
        status = subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL).returncode
    else:
        command += ["world=processes", "trainer.devices=1", f"++trainer.num_nodes={WORKERS}"]
        status = run(Testbed(WORKERS, bps), command)
    if status:
        raise InputError(f"{recipe}, {name}: the run ended with status {status}")
    return RunFolder(folder / name / recipe / "seed=1")


def _compared(
    recipe: str, bps: float, run: RunFolder, simulated: RunFolder, unshaped: RunFolder, host: Host
) -> dict[str, Any]:
    rows = run.history()
    end = ViewedRun(run.path).target()["round"]
    expected_end = ViewedRun(simulated.path).target()["round"]
    if end is None or end != expected_end:
        raise InputError(f"{recipe}: reached {ACCURACY} in round {end}, simulated in {expected_end}")
    measured = _wall(next(row for row in rows if row["round"] == end)) - _wall(rows[0])
    collective = run.summary()["collective"]
    until = [row for row in simulated.history() if row["round"] <= end]
    calm = unshaped.history()
    step_s, own_s = _a_round(calm, "compute_s"), _a_round(calm, "compression_s")
    forecast = elapsed(until, _link(collective, bps, host), 0, 0, step_s + own_s)
    assert forecast[-1] is not None
    assert forecast[0] is not None
    expected = forecast[-1] - forecast[0]
    return {
        "recipe": recipe, "links": f"{bps / 1e6:,.0f} Mbit/s", "collective": collective, "rounds": end,
        "measured": measured, "forecast": expected, "error": 100 * (expected / measured - 1),
    }  # fmt: skip


def _wall(row: Row) -> float:
    return sum(row[name] for name in WALL)


def _a_round(rows: Sequence[Row], name: str) -> float:
    """Seconds of a round, after the first evaluation: the first rounds compile and allocate."""
    first, last = rows[0], rows[-1]
    return (last[name] - first[name]) / (last["round"] - first["round"])


def _link(collective: str, bps: float, host: Host) -> LinkModel:
    kind = {"sharded": ShardedLink, "gather": GatherLink}[collective]
    return kind(bandwidth_bps=bps / host.wire, latency_s=host.exchange_s * crowd(WORKERS))
