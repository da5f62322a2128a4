"""Does it pay on my network? Seconds of a training step under each recipe, against the best dense all-reduce.

    python scripts/pay.py model=torchvision.models.resnet50 workers=8 bandwidth=10Gbit latency=50us step_ms=350
    python scripts/pay.py experiment=sasg_mnist bandwidth=100Mbit latency=50us step_ms=3
    python scripts/pay.py model=resnet18 workers=8 bandwidth=1Gbit --map

Model: one of configs/model or an import path; model.<argument>=, input=3x224x224 (or 128 tokens), loss=, batch=.
Network: workers=, bandwidth= (of each machine), latency= (a message; 50us), workers_per_node=, intra_bandwidth=.
Training: step_ms= (of one worker, or measure: here and now), overlap= (the share of it beside which all-reduces can
travel; 0.7), skips= (the share of uploads that lazy rules skip, or an experiment that has recorded them),
recipes=sasg,sparse.

A recipe's own work and the sizes of its messages are measured here and now, on gradients of the model. With an
experiment, the answer is the time to its target, from its recorded runs.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.findings.look import engineering
from bench.findings.pay import Network
from bench.findings.prices import Prices, measure_prices
from bench.findings.race import race
from bench.findings.subject import Subject, make_model, make_subject
from bench.findings.winners import draw_winners
from bench.recipes import load_recipe, recipe_names
from bench.runs.whole import write_whole
from bench.suite.scripts.cli import guarded
from bench.suite.scripts.units import bandwidth_bps, seconds
from bench.suite.scripts.views import number, pairs, share

KEYS = (
    "model", "experiment", "workers", "bandwidth", "latency", "workers_per_node", "intra_bandwidth", "step_ms",
    "overlap", "skips", "recipes", "input", "loss", "batch", "vocabulary", "results_dir",
)  # fmt: skip
MODELS_OWN = ("workers", "recipes", "skips", "input", "loss", "batch", "vocabulary")


def pay(given: Mapping[str, str], wants_map: bool, out: Path) -> None:
    """Print who pays.

    Raises:
        InputError: a setting is missing, unknown or impossible.
    """
    for key in given:
        if key not in KEYS and not key.startswith("model."):
            raise InputError(f"{key}: {given[key]!r}; nothing reads it, there is {', '.join(KEYS)}")
    if ("model" in given) == ("experiment" in given):
        raise InputError("model, experiment: one of them is needed, such as model=torchvision.models.resnet50")
    torch.set_num_threads(1)
    if "experiment" in given:
        for key in given:
            if key in MODELS_OWN or key.startswith("model."):
                raise InputError(f"{key}: {given[key]!r}; with experiment= nothing reads it, the runs have their own")
        if wants_map:
            raise InputError("--map: a map is drawn for model=, experiments have one number of workers")
        runs = race(given["experiment"], Path(given.get("results_dir", "results")))
        subject = runs.subject()
        network = _network(given, subject, runs.num_workers)
        print(runs.table(network, subject, _told(network)))
        return
    subject = _subject(given)
    network = _network(given, subject, _integer(given, "workers", 8))
    recipes = _recipes(given)
    skips = _skips(given, list(recipes))
    prices = measure_prices(recipes, subject, network.workers, wants_map, _bar)
    print(
        prices.table(network, skips, f"{given['model']}, {prices.dim:,} parameters, {subject.told}; {_told(network)}")
    )
    if wants_map:
        name = given["model"].rpartition(".")[2]
        kept = {**prices.plain(name), "network": asdict(network), "skips": skips}
        write_whole(out / name / "prices.json", json.dumps(kept) + "\n")
        print("\n".join(map(str, draw_winners(prices, network, skips, out / name))))


def redraw(folder: Path) -> list[Path]:
    """Draw the map of a folder's prices.json. Returns the files."""
    kept = json.loads((folder / "prices.json").read_text("utf-8"))
    return draw_winners(Prices.of(kept), Network(**kept["network"]), kept["skips"], folder)


def _recipes(given: Mapping[str, str]) -> dict[str, Algorithm]:
    """Those asked for, by default all whose round is a step."""
    if "recipes" not in given:
        every = {name: load_recipe(name) for name in recipe_names()}
        return {name: recipe for name, recipe in every.items() if recipe.local_steps is None}
    recipes: dict[str, Algorithm] = {}
    for given_name in given["recipes"].split(","):
        try:
            recipe = load_recipe(given_name)
        except InputError as error:
            raise InputError(f"recipes: {given_name!r}; {error}") from error
        if recipe.name in recipes:
            raise InputError(f"recipes: {recipe.name!r} is given twice; recipes with names of their own are needed")
        if recipe.local_steps is not None:
            raise InputError(f"recipes: {recipe.name}; its round is many steps, so experiment= tells its time")
        recipes[recipe.name] = recipe
    return recipes


def _subject(given: Mapping[str, str]) -> Subject:
    arguments = {
        key.removeprefix("model."): _literal(value) for key, value in given.items() if key.startswith("model.")
    }
    model = make_model(given["model"], arguments)
    shape = None
    if "input" in given:
        try:
            shape = tuple(int(size) for size in given["input"].lower().split("x"))
        except ValueError:
            raise InputError(f"input: {given['input']!r}; sizes are needed, such as 3x224x224") from None
    vocabulary = _integer(given, "vocabulary", 0) if "vocabulary" in given else None
    return make_subject(model, shape, given.get("loss", "cross_entropy"), _integer(given, "batch", 8), vocabulary)


def _network(given: Mapping[str, str], subject: Subject, workers: int) -> Network:
    if "bandwidth" not in given:
        raise InputError("bandwidth: not given; that of a machine is needed, such as 10Gbit")
    intra = given.get("intra_bandwidth")
    step = given.get("step_ms", "measure")
    if step == "measure" and subject.guessed and "model" in given:
        raise InputError(f"step_ms: measure; input= is needed with it, a guess ({subject.told}) would be timed")
    step_s = subject.step_s() if step == "measure" else seconds("step_ms", step, bare=1e-3)
    return Network(
        workers=workers,
        bandwidth_bps=bandwidth_bps("bandwidth", given["bandwidth"]),
        latency_s=seconds("latency", given.get("latency", "50us")),
        step_s=step_s,
        overlap=share("overlap", given.get("overlap", "0.7")),
        workers_per_node=_integer(given, "workers_per_node", 1),
        intra_bandwidth_bps=None if intra is None else bandwidth_bps("intra_bandwidth", intra),
    )


def _told(network: Network) -> str:
    machines = ""
    if network.workers_per_node > 1:
        within = engineering(network.intra_bandwidth_bps or 0)
        machines = f", {network.workers_per_node} a machine at {within}bit/s within"
    speed = f"{engineering(network.bandwidth_bps)}bit/s, {network.latency_s * 1e6:g} µs a message"
    step = f"{network.step_s * 1e3:.4g} ms a step, overlap {network.overlap:g}"
    return f"{network.workers} workers{machines}, {speed}, {step}"


def _skips(given: Mapping[str, str], names: Sequence[str]) -> dict[str, float]:
    """The share of uploads that each recipe skips."""
    told = given.get("skips", "0")
    try:
        return dict.fromkeys(names, share("skips", told))
    except InputError:
        if told.replace(".", "").replace("-", "").isdigit():
            raise
    return race(told, Path(given.get("results_dir", "results"))).skips(names)


def _integer(given: Mapping[str, str], key: str, default: int) -> int:
    value = number(key, given.get(key, str(default)))
    if not (math.isfinite(value) and value == int(value)):
        raise InputError(f"{key}: {given[key]!r}; a whole number is needed")
    return int(value)


def _literal(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False, "null": None, "none": None}.get(text.lower(), text)


def _bar(names: Sequence[str]) -> "tqdm[str]":
    return tqdm(names, unit="recipe", leave=False, dynamic_ncols=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--map", action="store_true", help="draw who wins over bandwidth and workers")
    parser.add_argument("--out", type=Path, default=Path("results") / "pay", help="where the map is written")
    args = parser.parse_intermixed_args()

    def run() -> None:
        pay(pairs(args.settings), args.map, args.out)

    guarded(run)


if __name__ == "__main__":
    main()
