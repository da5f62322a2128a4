"""Holds the laws of recipes against those of your own package, and measures what they cost.

    python scripts/check.py your_package                     # its recipes: registered, or algorithm/*.yaml in it
    python scripts/check.py your_package --rewrite-golden    # writes today's costs as golden traces into the package

Conformance of every part, equivalence, counts, parity of real processes, resumption, garbage on the wire, and the time
of a round. Exit status 1 if a law is broken.
"""

import argparse
import linecache
import os
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from bench.extras import need
from bench.suite.scripts.cli import guarded
from bench.suite.scripts.waiting import say_what_takes_long


class Tally:
    """Counts, by law, on how many subjects it held.

    Attributes:
        outcomes: law -> how often it passed, failed, or was skipped.
        failures: the names of tests that failed, and why.
        reasons: law -> why it was skipped.
    """

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.failures: list[tuple[str, str]] = []
        self.reasons: dict[str, str] = {}
        self._laws: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Learn which law each test holds."""
        self.progress.reset(len(items))
        for item in items:
            spec = getattr(item, "callspec", None)
            law = spec.params.get("law") if spec else None
            name = law.__name__ if law else item.originalname.removeprefix("test_")
            self._laws[item.nodeid] = name.replace("_", " ")

    def pytest_collectreport(self, report: Any) -> None:
        """Note what could not be collected."""
        if report.failed:
            self.failures.append(("collection", " ".join(str(report.longrepr).split())[-200:]))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count an outcome: of the call, or of what went wrong before it."""
        if report.when != "call" and report.passed:
            return
        if report.when != "teardown":
            self.progress.update()
        law = self._laws[report.nodeid]
        self.outcomes[law][report.outcome] += 1
        if report.failed:
            self.failures.append((report.nodeid.split("::")[-1], _why(report.longrepr)[:200]))
        elif report.skipped:
            self.reasons[law] = str(report.longrepr[2]).removeprefix("Skipped: ")


def _why(failure: Any) -> str:
    """What a law says where it is broken: the assertion that fails, if it has no words, or the error's last line, if it
    is that of another process."""
    crash = getattr(failure, "reprcrash", None)
    said = crash.message if crash else str(failure)
    if crash and said.strip() == "AssertionError":
        said = linecache.getline(crash.path, crash.lineno)
    elif "Traceback (most recent call last)" in said:
        said = said.strip().splitlines()[-1]
    return " ".join(said.split())


def check(package: str, rewrite_golden: bool, num_rounds: int) -> None:
    """Print a table of what holds, then the times of a round.

    Raises:
        InputError: too few rounds, the package has no recipes, or pytest is not installed.
    """
    need("check", "pytest", "hypothesis")
    say_what_takes_long()
    import pytest
    from tqdm.auto import tqdm

    import bench
    from bench.laws.theirs import theirs
    from bench.suite.scripts.bare import keep_quiet
    from bench.suite.scripts.benchmark import benchmark, plain_arguments, refuse_rounds

    found = theirs(package)
    refuse_rounds(timed := plain_arguments(list(found.recipes.values()), num_rounds))
    print(f"{package}: {', '.join(found.recipes)}")
    laws = Path(bench.__file__).parent / "laws"
    options = [
        "--recipes",
        package,
        "--rootdir",
        str(laws),
        "-c",
        os.devnull,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:terminal",
    ]
    os.environ.pop("PYTEST_ADDOPTS", None)  # it might leave laws out
    with tqdm(desc="laws", unit="law", leave=False) as progress:
        tally = Tally(progress)
        status = pytest.main([str(laws), *options, *(["--rewrite-golden"] if rewrite_golden else [])], plugins=[tally])
    if status == pytest.ExitCode.INTERRUPTED and not tally.failures:
        sys.exit(130)
    width = max(map(len, tally.outcomes), default=0)
    for law, outcomes in sorted(tally.outcomes.items()):
        held, broken = outcomes["passed"], outcomes["failed"]
        told = f"broken in {broken} of {broken + held}" if broken else f"holds ({held})" if held else tally.reasons[law]
        print(f"  {law:{width}}  {told}")
    for name, why in tally.failures:
        print(f"broken: {name}: {why}")
    keep_quiet()
    benchmark(timed)
    if status != pytest.ExitCode.OK or tally.failures:
        print(f"{package}: not all laws hold" if tally.failures else f"{package}: the laws ended with {status!r}")
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="importable: installed, or on PYTHONPATH")
    parser.add_argument("--rewrite-golden", action="store_true", help="write today's ledger traces as the golden ones")
    parser.add_argument("--rounds", type=int, default=200, help="of the benchmark")
    args = parser.parse_args()
    guarded(lambda: check(args.package, args.rewrite_golden, args.rounds))


if __name__ == "__main__":
    main()
