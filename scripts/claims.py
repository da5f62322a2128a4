"""Decides the claims of papers by our runs.

    python scripts/claims.py

Reads results/claims.yaml, where a claim is a rule over runs, and writes results/CLAIMS.md: our figure with its
interval, and whether the claim holds, does not hold or is undecided.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse
from pathlib import Path

from bench.findings.claims import Page, read_claims
from bench.runs.whole import write_whole
from bench.suite.scripts.cli import guarded


def decide(results: Path) -> None:
    """Write the page of the claims in a results folder."""
    write_whole(page := results / "CLAIMS.md", Page(results, read_claims(results / "claims.yaml")).markdown())
    print(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    guarded(lambda: decide(args.results))


if __name__ == "__main__":
    main()
