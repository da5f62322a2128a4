"""Every table in results/, as Markdown, LaTeX and CSV, ours beside the paper's.

    python scripts/tables.py                # all experiments that have results
    python scripts/tables.py sasg_mnist     # one
    python scripts/tables.py quickstart --print

Writes results/<experiment>/table.{md,tex,csv}, and the tables that README.md and results/README.md show.
"""

import argparse
import re
from pathlib import Path

from bench.findings.experiments import Experiment, read_experiments
from bench.findings.table import Table
from bench.findings.tables import table
from bench.runs.results import write_whole
from scripts.cli import each, guarded


def into_page(page: Path, experiment: str, table: Table) -> None:
    """Replace what stands between the experiment's marks, if the page has them."""
    text = page.read_text("utf-8")
    start, end = f"<!-- table {experiment} -->", "<!-- /table -->"
    shown = re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{table.markdown()}{end}", text, flags=re.DOTALL)
    if shown != text:
        write_whole(page, shown)


def regenerate(names: list[str], results: Path, shown: bool) -> None:
    """Write the tables of these experiments; of all if none is named."""

    def write(experiment: Experiment) -> None:
        found = table(experiment)
        found.write(experiment.folder)
        for page in (results.parent / "README.md", results / "README.md"):
            if page.exists():
                into_page(page, experiment.name, found)
        print(found.markdown() if shown else experiment.folder / "table.md")

    each(read_experiments(names, results), write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help="default: all with results")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--print", action="store_true", help="show the Markdown, too")
    args = parser.parse_args()
    guarded(lambda: regenerate(args.experiments, args.results, args.print))


if __name__ == "__main__":
    main()
