"""Holds forecasts of times to an accuracy against training on a shaped network, for `scripts/testbed.py forecast`."""

import json
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
from bench.findings.pay import COLLECTIVES
from bench.findings.table import Column, Table
from bench.findings.view import ViewedRun
from bench.link import LinkModel
from bench.runs.columns import Row
from bench.runs.results import RunFolder
from bench.suite.scripts.launching import run
from bench.suite.scripts.namespaces import Testbed
from bench.suite.scripts.validation import Host, crowd, host_of

WORKERS, BANDWIDTHS, RECIPES = 4, (1e8, 1e9), ("sgd", "half", "sparse")
ACCURACY, RATE, ROUNDS, EVERY, CALIBRATED = 0.95, 0.2, 500, 25, 75
WALL = ("compute_s", "compression_s", "waited_s", "measured_s")


def forecast(out: Path) -> Table:
    """Train on shaped links, in a simulation and on unshaped ones; keep the histories, and compare.

    Raises:
        InputError: a run failed, or real and simulated workers did not reach the accuracy in the same round.
    """
    host_of(out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for recipe in tqdm(RECIPES, unit="recipe"):
            simulated = ViewedRun(_train(folder, recipe, "simulated").path).target()["round"]
            _keep(_train(folder, recipe, "unshaped", None), _file(out, recipe, None))
            for bps in BANDWIDTHS:
                run = _train(folder, recipe, f"{bps / 1e6:.0f} Mbit", bps)
                _keep(run, _file(out, recipe, bps))
                if (real := ViewedRun(run.path).target()["round"]) is None or real != simulated:
                    raise InputError(f"{recipe}: reached {ACCURACY} in round {real}, simulated in {simulated}")
    return compare(out)


def compare(out: Path) -> Table:
    """The table of runs that were measured before."""
    host = host_of(out)
    columns = [
        Column("recipe", "recipe", "name"), Column("links", "links", "name"),
        Column("collective", "carried by", "name"), Column("rounds", "rounds", "count"),
        Column("measured", "measured s", "seconds"), Column("forecast", "forecast s", "seconds"),
        Column("error", "error %", "seconds"),
    ]  # fmt: skip
    caption = (
        f"Seconds to {ACCURACY:.0%} test accuracy on FC-MNIST, {WORKERS} workers, evaluations left out: measured on "
        "shaped links; forecast from the traffic of the rounds, compute and own work as measured on the same links "
        "unshaped, and the model with the host's constants."
    )
    rows = [_compared(out, recipe, bps, host) for recipe in RECIPES for bps in BANDWIDTHS]
    table = Table(caption, columns, rows)
    table.write(out / "forecast")
    return table


def _file(out: Path, recipe: str, bps: float | None) -> Path:
    return out / "forecast" / recipe / ("unshaped" if bps is None else f"{bps / 1e6:.0f}Mbit")


def _keep(run: RunFolder, kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("history.csv", "summary.json"):
        shutil.copy(run.path / name, kept / name)


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


def _compared(out: Path, recipe: str, bps: float, host: Host) -> dict[str, Any]:
    kept, calm = RunFolder(_file(out, recipe, bps)), RunFolder(_file(out, recipe, None)).history()
    collective, end = kept.summary()["collective"], kept.summary()["target"]["round"]
    rows = [row for row in kept.history() if row["round"] <= end]
    measured = _wall(rows[-1]) - _wall(rows[0])
    work_s = _a_round(calm, "compute_s") + _a_round(calm, "compression_s")
    cores = json.loads((out / "measured.json").read_text("utf-8"))["cores"]
    first, *_, last = elapsed(rows, _link(collective, bps, host, cores), own_s=work_s)
    assert first is not None
    assert last is not None
    return {
        "recipe": recipe, "links": f"{bps / 1e6:,.0f} Mbit/s", "collective": collective, "rounds": end,
        "measured": measured, "forecast": last - first, "error": 100 * ((last - first) / measured - 1),
    }  # fmt: skip


def _wall(row: Row) -> float:
    return sum(row[name] for name in WALL)


def _a_round(rows: Sequence[Row], name: str) -> float:
    """Seconds of a round, after the first evaluation: the first rounds compile and allocate."""
    first, last = rows[0], rows[-1]
    return (last[name] - first[name]) / (last["round"] - first["round"])


def _link(collective: str, bps: float, host: Host, cores: int) -> LinkModel:
    return COLLECTIVES[collective](bandwidth_bps=bps / host.wire, latency_s=host.exchange_s * crowd(WORKERS, cores))
