"""Places are taken seed by seed."""

from dataclasses import replace
from pathlib import Path

from bench.findings.experiments import Experiment
from bench.findings.ranks import ranks
from bench.findings.sample import Sample
from bench.findings.tables import table
from bench.findings.view import View
from bench.link import RingLink

RESULTS = Path(__file__).parents[3] / "results"


def test_places() -> None:
    """The least cost is first, equal ones share a place, and who misses a seed is last in it."""
    seeds = ("a", "b", "c")
    places = ranks(
        {
            "quick": Sample((1, 5, 1), 3, seeds=seeds),
            "steady": Sample((2, 2, 2), 3, seeds=seeds),
            "as steady": Sample((2, 2, 2), 3, seeds=seeds),
            "misses": Sample((9,), 3, seeds=("b",)),
            "never": Sample((), 3),
        }
    )
    assert {name: place.values for name, place in places.items()} == {
        "quick": (1, 3, 1), "steady": (2, 1, 2), "as steady": (2, 1, 2), "misses": (4, 4, 4), "never": (4, 5, 4),
    }  # fmt: skip


def test_who_has_no_such_cost_keeps_its_row() -> None:
    """A ring carries no top-k: its seconds are unknown, and it comes last, with all else that is known of it."""
    seen = Experiment.read("showdown_tuned", RESULTS, View(RingLink()))
    asked = {**seen.spec, "table": {"kind": "costs", "rank": "modelled_s"}}
    rows = {str(row["recipe"]): row for row in table(replace(seen, spec=asked)).rows}
    assert list(rows).index("sparse") > list(rows).index("sgd")
    assert "rank" not in rows["sparse"]
    assert "total_bits" in rows["sparse"]
