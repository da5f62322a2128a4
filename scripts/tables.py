"""Every table in results/, as Markdown, LaTeX and CSV, ours beside the paper's.

    python scripts/tables.py                # all experiments that have results
    python scripts/tables.py sasg_mnist     # one
    python scripts/tables.py quickstart --print

Writes results/<experiment>/table.{md,tex,csv}, and the tables that README.md shows.
"""

import argparse
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bench.errors import InputError
from bench.results import write_whole
from bench.tables import Table, sweep_table, target_table
from scripts.cli import guarded
from scripts.matrix import cells


def experiments_in(results: Path) -> list[str]:
    """The experiments that have a complete run."""
    return sorted({path.parts[-4] for path in results.glob("*/*/*/summary.json")})


def table_of(experiment: str, results: Path) -> Table:
    """The table of one experiment.

    Raises:
        InputError: it has no results.
    """
    if not list((results / experiment).glob("*/*/summary.json")):
        there = experiments_in(results)
        raise InputError(
            f"experiment: {experiment!r} has no complete run in {results}; there is {', '.join(there) or 'none'}"
        )
    config, order = specified(experiment)
    if config.get("table"):
        return sweep_table(experiment, results / experiment, order, **config["table"])
    return target_table(experiment, results / experiment, config.get("paper"), order)


def specified(experiment: str) -> tuple[dict[str, Any], list[str]]:
    """What an experiment's file says, and the labels of its grid in order; nothing for runs without such a file."""
    if not (files("configs") / "experiment" / f"{experiment}.yaml").is_file():
        return {}, []
    shared, grid = cells([f"experiment={experiment}"])
    config = OmegaConf.to_container(shared)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}, [cell.folder.path.parent.name for cell in grid]


def into_readme(readme: Path, experiment: str, table: Table) -> None:
    """Replace what stands between the experiment's marks, if the README has them."""
    text = readme.read_text("utf-8")
    start, end = f"<!-- table {experiment} -->", "<!-- /table -->"
    shown = re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{table.markdown()}{end}", text, flags=re.DOTALL)
    if shown != text:
        write_whole(readme, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help="default: all with results")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--print", action="store_true", help="show the Markdown, too")
    args = parser.parse_args()

    def regenerate() -> None:
        for experiment in args.experiments or experiments_in(args.results):
            table = table_of(experiment, args.results)
            table.write(args.results / experiment)
            if (readme := args.results.parent / "README.md").exists():
                into_readme(readme, experiment, table)
            if args.print:
                print(table.markdown())

    guarded(regenerate)


if __name__ == "__main__":
    main()
