"""Reads how results are to be looked at from a command line: names of experiments, and settings of a view.

sasg_mnist link=ring link.bandwidth_bps=10Gbit link.latency_s=50us step_ms=350 overlap=0.7 --target 0.97
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from bench.configured import instantiate
from bench.errors import InputError
from bench.findings.view import View
from bench.link import LinkModel
from bench.runs.settings import refuse_parts
from bench.suite.scripts.units import bandwidth_bps, seconds

SETTINGS = ("link", "link.<field>", "step_ms", "overlap", "rounds")


def add_view(parser: ArgumentParser) -> None:
    """Add the arguments that `read_view` reads."""
    told = "names of experiments, by default all with results; and a network: " + ", ".join(SETTINGS)
    parser.add_argument("experiments", nargs="*", help=told)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--target", help="instead of the experiment's own: a value of its target's metric")
    parser.add_argument("--out", type=Path, default=Path("views"), help="where another view is written")


def read_view(args: Namespace) -> tuple[list[str], View]:
    """The experiments, and the view on them.

    Raises:
        InputError: an unknown setting, or a value that it cannot have.
    """
    names = [given for given in args.experiments if "=" not in given]
    given = pairs(setting for setting in args.experiments if "=" in setting)
    network = {key: value for key, value in given.items() if key.split(".")[0] == "link"}
    if unknown := given.keys() - network.keys() - {"step_ms", "overlap", "rounds"}:
        key = min(unknown)
        if key in ("results", "results_dir"):
            raise InputError(f"{key}: {given[key]!r}; --results {given[key]} says so here")
        raise InputError(f"{key}: {given[key]!r}; nothing reads it, there is {', '.join(SETTINGS)}")
    if network and "link" not in network:
        raise InputError(f"{min(network)}: {network[min(network)]!r}; link= is needed with it, such as link=sharded")
    if "overlap" in given and "step_ms" not in given:
        raise InputError(f"overlap: {given['overlap']!r}; it is a share of step_ms=, which is needed with it")
    return names, View(
        link=make_link(network) if network else None,
        step_ms=1e3 * seconds("step_ms", given.get("step_ms", "0"), bare=1e-3),
        overlap=share("overlap", given.get("overlap", "0")),
        rounds=_stretch(given["rounds"]) if "rounds" in given else None,
        target=None if args.target is None else number("--target", args.target),
    )


def pairs(settings: Iterable[str]) -> dict[str, str]:
    """Settings key=value from a command line.

    Raises:
        InputError: one has another form, or a key is given twice.
    """
    found: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{setting!r}: settings have the form key=value")
        if key in found:
            raise InputError(f"{key}: given twice, {found[key]!r} and {value!r}; one value is needed")
        found[key] = value
    return found


def make_link(settings: dict[str, str]) -> LinkModel:
    """The link of a config's settings: `link` is its name in configs/link, `link.<field>` one of its fields.

    Raises:
        InputError: a bandwidth or latency that cannot be, or another value of a wrong type.
    """
    read = {"bandwidth_bps": bandwidth_bps, "intra_bandwidth_bps": bandwidth_bps, "latency_s": seconds}
    overrides = []
    for key, value in settings.items():
        reader = read.get(key.rpartition(".")[2])
        overrides.append(f"{key}={value if reader is None else reader(key, value, bare=1.0)}")
    with initialize_config_module("bench.suite.configs", version_base="1.3"):
        link = compose("train", overrides).link
    refuse_parts(OmegaConf.to_container(link, resolve=True), "link.")
    return instantiate(link)


def _stretch(given: str) -> tuple[int, int]:
    first, _, last = given.partition("-")
    if not (first.isdigit() and last.isdigit()):
        raise InputError(f"rounds: {given!r}; two rounds are needed, such as 0-100")
    return int(first), int(last)


def number(name: str, given: str) -> float:
    """A number from the command line.

    Raises:
        InputError: it is none.
    """
    try:
        return float(given)
    except ValueError:
        raise InputError(f"{name}: {given!r}; a number is needed") from None


def share(name: str, given: str) -> float:
    """A number between 0 and 1.

    Raises:
        InputError: it is none.
    """
    if not 0 <= (value := number(name, given)) <= 1:
        raise InputError(f"{name}: {given!r}; a share between 0 and 1 is needed")
    return value
