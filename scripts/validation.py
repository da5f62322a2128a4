"""Holds the models of links against rounds measured on a shaped network, for `scripts/testbed.py validate`."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import least_squares
from tqdm.auto import tqdm

from bench.errors import InputError
from bench.findings.look import color
from bench.findings.paper import LOOK, save
from bench.findings.pay import COLLECTIVES
from bench.findings.scales import in_full
from bench.findings.subject import make_subject
from bench.findings.table import Column, Table
from bench.runs.whole import write_whole
from bench.suite.models.mlp import mlp
from bench.suite.scripts.namespaces import Testbed
from bench.traffic import Traffic

CONTENDERS = (
    "ddp", "sgd allreduce", "sgd sharded", "sgd gather", "half allreduce", "half sharded", "sparse", "signsgd_mv",
    "sasg", "powersgd",
)  # fmt: skip
DENSE = ("ddp", "sgd", "half")
SIZES = (2, 4)
BANDWIDTHS = (1e8, 1e9)
FITTED = (4, 1e8)
"""The set-up from which the host's constants come."""
ROUNDS = {None: 60, 1e8: 25, 1e9: 60}
RECORDED, LEARNING_RATE, BATCH, PORT = 8, 0.05, 10, 29_500
NUM_PARAMETERS = 407_050
OPEN: Any = {"color": "black", "markerfacecolor": "none", "markersize": 7}
"""Marks of PyTorch's DDP, which is no recipe of ours."""


@dataclass(frozen=True)
class Host:
    """The few constants of the machine.

    Attributes:
        wire: bits that cross a link for each bit of a message: headers, and acknowledgements on their way.
        exchange_s: seconds of an exchange of ours, for each process that shares a core.
        ring_s: seconds of an all-reduce, for each process that shares a core.
    """

    wire: float
    exchange_s: float
    ring_s: float


def record(folder: Path, num_workers: int) -> None:
    """Write gradients of FC-MNIST's network on digits, along a few steps of SGD, a file for each worker."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    subject = make_subject(mlp(), None, "cross_entropy", BATCH)
    kept: list[list[torch.Tensor]] = [[] for _ in range(num_workers)]
    for step in range(RECORDED):
        gradients = [subject.gradient(step * num_workers + rank) for rank in range(num_workers)]
        for rows, gradient in zip(kept, gradients, strict=True):
            rows.append(gradient)
        subject.layout.vector.sub_(torch.stack(gradients).mean(dim=0), alpha=LEARNING_RATE)
    for rank, rows in enumerate(kept):
        np.save(folder / f"gradients{rank}.npy", torch.stack(rows).numpy())


def measured(num_workers: int, bandwidth_bps: float | None, folder: Path) -> dict[str, Any]:
    """Replay every contender on such a network; what each round took, by contender."""
    plan = {"folder": str(folder), "contenders": CONTENDERS, "rounds": ROUNDS[bandwidth_bps]}
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, str(Path(__file__).with_name("replay.py")), str(folder / "plan.json")]
    root = str(Path(__file__).parents[1])
    with Testbed(num_workers, bandwidth_bps) as bed:
        shared = {"WORLD_SIZE": str(num_workers), "MASTER_ADDR": bed.address, "MASTER_PORT": str(PORT)}
        workers = [
            bed.start(rank, command, {**shared, "RANK": str(rank), "OMP_NUM_THREADS": "1", "PYTHONPATH": root})
            for rank in range(num_workers)
        ]
        for worker in workers:
            if worker.wait():
                raise InputError(f"a worker ended with status {worker.returncode}, as it says above")
    return json.loads((folder / "found.json").read_text())


def validate(out: Path) -> Table:
    """Measure all set-ups, fit the host's constants on one, and compare the others with the model."""
    found: dict[str, Any] = {"cores": os.cpu_count() or 1}
    setups = [(size, bps) for size in SIZES for bps in (None, *BANDWIDTHS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size, bps in tqdm(setups, unit="network"):
            record(folder, size)
            found[key(size, bps)] = measured(size, bps, folder)
    write_whole(out / "measured.json", json.dumps(found, indent=1) + "\n")
    return compare(out)


def compare(out: Path) -> Table:
    """The table of a validation that was measured before."""
    found = json.loads((out / "measured.json").read_text("utf-8"))
    host = fit(found)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        for bps in BANDWIDTHS:
            for name in CONTENDERS:
                seen, expected = found[key(size, bps)][name], modelled_ms(found, host, size, bps, name)
                rows.append({
                    "setup": f"{size} workers, {bps / 1e6:,.0f} Mbit/s" + (" (fitted)" * ((size, bps) == FITTED)),
                    "name": name, "collective": seen["collective"], "measured": seen["ms"], "low": seen["low_ms"],
                    "high": seen["high_ms"], "modelled": expected,
                    "error": 100 * (expected / seen["ms"] - 1), "own": own_ms(found, size, name),
                    "wire": wire_ms(found, host, size, bps, name),
                })  # fmt: skip
    columns = [
        Column("setup", "links", "name"), Column("name", "contender", "name"),
        Column("collective", "carried by", "name"), Column("measured", "measured ms", "seconds"),
        Column("low", "from", "seconds"), Column("high", "to", "seconds"), Column("modelled", "modelled ms", "seconds"),
        Column("error", "error %", "seconds"), Column("own", "own work ms", "seconds"),
        Column("wire", "on the wire ms", "seconds"),
    ]  # fmt: skip
    held = [row for row in rows if "fitted" not in str(row["setup"])]
    within = {
        kind: sum(abs(row["error"]) <= most for row in chosen) / len(chosen)
        for kind, most, chosen in (
            ("dense", 5, [row for row in held if is_dense(row["name"])]),
            ("compressed", 10, [row for row in held if not is_dense(row["name"])]),
        )
    }
    caption = (
        "Rounds of FC-MNIST with replayed gradients: the median ms, and the quartiles. Of those not fitted, "
        f"{within['dense']:.0%} of the dense ones lie within 5 % and {within['compressed']:.0%} of the compressed ones "
        "within 10 %. Own work was measured on the same links unshaped. Host: "
        f"{host.wire:.3f} bits on a link for each bit of a message; {1e3 * host.exchange_s:.2f} ms an exchange and "
        f"{1e3 * host.ring_s:.2f} ms an all-reduce, for each process on a core."
    )
    table = Table(caption, columns, rows)
    table.write(out)
    save(picture(rows), out, caption)
    return table


def redraw(folder: Path) -> None:
    """Draw the figure, and make the table, of a folder's measured.json."""
    compare(folder)


def key(size: int, bps: float | None) -> str:
    """The name of a set-up."""
    return f"{size} workers, {'unshaped' if bps is None else f'{bps / 1e6:.0f} Mbit/s'}"


def is_dense(name: str) -> bool:
    return name.split()[0] in DENSE


def own_ms(found: Mapping[str, Any], size: int, name: str) -> float:
    """A worker's own work, as it was measured without a shaped link."""
    return found[key(size, None)][name]["compression_s"]


def wire_ms(found: Mapping[str, Any], host: Host, size: int, bps: float, name: str) -> float:
    """Milliseconds that the bits of a round need on the wire."""
    seen = found[key(size, bps)][name]
    return 1e3 * host.wire * _link_s(seen, size, bps)


def _link_s(seen: Mapping[str, Any], size: int, bps: float) -> float:
    """Seconds a round on links without latency."""
    carrier: str = seen["collective"]
    kind = COLLECTIVES["ring" if carrier == "allreduce" else carrier]
    if "traffic" not in seen:  # DDP
        traffic, rounds = Traffic.none(size), 1
        traffic.add(np.ones(size, bool), np.full(size, 32 * NUM_PARAMETERS), 0, 0, False)
    else:
        traffic, rounds = Traffic(**seen["traffic"]), seen["rounds"]
    return kind(bandwidth_bps=bps, latency_s=0).seconds(traffic) / rounds


def exchanges(seen: Mapping[str, Any]) -> tuple[float, float]:
    """How many exchanges of ours, and how many all-reduces, a round takes."""
    if seen["collective"] in ("ring", "allreduce"):
        return 0, 1
    traffic, rounds = Traffic(**seen["traffic"]), seen["rounds"]
    answers = traffic.answers if seen["collective"] == "sharded" else 0
    return (traffic.answers + traffic.agreement_rounds + traffic.upload_rounds + answers) / rounds, 0


def modelled_ms(found: Mapping[str, Any], host: Host, size: int, bps: float, name: str) -> float:
    """A worker's own work, plus the host's constants, plus the bits on the wire."""
    ours, rings = exchanges(found[key(size, bps)][name])
    waits = 1e3 * crowd(size, found["cores"]) * (ours * host.exchange_s + rings * host.ring_s)
    return own_ms(found, size, name) + waits + wire_ms(found, host, size, bps, name)


def crowd(size: int, cores: int) -> float:
    """How many processes share a core."""
    return max(1.0, size / cores)


def fit(recorded: Mapping[str, Any]) -> Host:
    """The constants that explain one set-up best: relative errors, few of which may be large, none negative."""
    size, bps = FITTED
    left, right = [], []
    for name in CONTENDERS:
        seen = recorded[key(size, bps)][name]
        ours, rings = exchanges(seen)
        scale, shared = seen["ms"], 1e3 * crowd(size, recorded["cores"])
        left.append([1e3 * _link_s(seen, size, bps) / scale, shared * ours / scale, shared * rings / scale])
        right.append((scale - own_ms(recorded, size, name)) / scale)
    factors, wanted = np.array(left), np.array(right)
    begun = np.clip(np.linalg.lstsq(factors, wanted, rcond=None)[0], 1e-6, None)
    found = least_squares(
        lambda x: factors @ x - wanted, begun, bounds=(0, np.inf), loss="soft_l1", f_scale=0.02, x_scale=begun
    )
    return Host(*(float(f"{constant:.6g}") for constant in found.x))  # further digits are the machine's


def picture(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Measured against modelled, a mark for each contender and set-up."""
    setups, marks = list(dict.fromkeys(row["setup"] for row in rows)), "os^D"
    with matplotlib.style.context(LOOK):
        drawing = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = drawing.subplots()
        ends = [min(row["measured"] for row in rows) * 0.8, max(row["measured"] for row in rows) * 1.25]
        axes.plot(ends, ends, color="#999999", linewidth=0.8)
        for share in (0.9, 1.1):
            axes.plot(ends, [share * end for end in ends], color="#cccccc", linewidth=0.6)
        for row in rows:
            recipe = row["name"].split()[0]
            look: Any = OPEN if recipe == "ddp" else {"color": color(recipe), "markersize": 4}
            axes.plot(row["measured"], row["modelled"], marks[setups.index(row["setup"])], **look)
        for mark, setup in zip(marks, setups, strict=False):
            axes.plot([], [], mark, color="#777777", markersize=4, label=setup)
        for name in dict.fromkeys(row["name"].split()[0] for row in rows):
            if name == "ddp":
                axes.plot([], [], "o", label="ddp", **OPEN)
            else:
                axes.plot([], [], "-", color=color(name), label=name)
        axes.set(xscale="log", yscale="log", xlabel="measured ms a round", ylabel="modelled ms a round")
        in_full(axes)
        drawing.legend(loc="outside right center")
    return drawing


def host_of(out: Path) -> Host:
    """The constants of a validation that was measured before.

    Raises:
        InputError: there is none.
    """
    if not (file := out / "measured.json").exists():
        raise InputError(f"{file}: not there; scripts/testbed.py validate measures it")
    return fit(json.loads(file.read_text("utf-8")))
