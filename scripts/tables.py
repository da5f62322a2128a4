"""Writes the tables of experiments as Markdown, LaTeX and CSV, with the papers' numbers next to ours.

    python scripts/tables.py                # all experiments with results
    python scripts/tables.py sasg_mnist     # one experiment
    python scripts/tables.py quickstart --print
    python scripts/tables.py sasg_mnist --target 0.97
    python scripts/tables.py sasg_mnist rounds=11900-12000
    python scripts/tables.py sasg_mnist link=sharded link.bandwidth_bps=100Mbit link.latency_s=50us step_ms=5

Writes results/<experiment>/table.{md,tex,csv}, and with all columns table_full.{md,tex,csv}, and a file for each of the
experiment's further `tables`; updates those in README.md and results/README.md. Another target, stretch or network
changes none of these: the first table is printed, and written to views/<experiment>/.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse
import re
from pathlib import Path

from bench.findings.experiments import Experiment, read_experiments
from bench.findings.table import Table
from bench.findings.tables import further_tables, table
from bench.findings.view import AS_RECORDED
from bench.runs.whole import write_whole
from bench.suite.scripts.cli import each, guarded
from bench.suite.scripts.views import add_view, read_view


def into_page(page: Path, which: str, table: Table) -> None:
    """Replace the table between the markers of an experiment, or of one of its further tables (`<experiment>/<table>`),
    if the page has them. The first marker may name columns, as headings of table_full.csv begin:
    <!-- table sasg_mnist: recipe final uploads -->."""
    text = page.read_text("utf-8")

    def found(old: re.Match[str]) -> str:
        shown = table.only(old["columns"].split()) if old["columns"] else table.short
        return f"{old['start']}\n{shown.markdown()}{old['end']}"

    marked = rf"(?P<start><!-- table {re.escape(which)}(: (?P<columns>[a-z_ ]+))? -->).*?(?P<end><!-- /table -->)"
    shown = re.sub(marked, found, text, flags=re.DOTALL)
    if shown != text:
        write_whole(page, shown)


def regenerate(args: argparse.Namespace) -> None:
    """Write the tables of the named experiments; without names, of all."""
    names, view = read_view(args)
    results, shown = args.results, args.print

    def write(experiment: Experiment) -> None:
        if view != AS_RECORDED:
            found = table(experiment)
            found.write(args.out / experiment.name)
            return print(found.short.markdown())
        keep(experiment, "table", table(experiment))
        for name, found in further_tables(experiment).items():
            keep(experiment, name, found)

    def keep(experiment: Experiment, name: str, found: Table) -> None:
        found.write(experiment.folder, name)
        for page in (results.parent / "README.md", results / "README.md"):
            if page.exists():
                into_page(page, experiment.name if name == "table" else f"{experiment.name}/{name}", found)
        print(found.short.markdown() if shown else experiment.folder / f"{name}.md")

    each(read_experiments(names, results, view), write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_view(parser)
    parser.add_argument("--print", action="store_true", help="also print the Markdown")
    args = parser.parse_intermixed_args()
    guarded(lambda: regenerate(args))


if __name__ == "__main__":
    main()
