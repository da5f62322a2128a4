"""The names of the recipes that the package brings: each is one file in `configs/algorithm/`, its only definition."""

from importlib.resources import files

FOLDER = files("bench.suite.configs") / "algorithm"


def house_names() -> list[str]:
    """Return the names, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in FOLDER.iterdir() if f.name.endswith(".yaml"))
