"""Places are taken seed by seed."""

from bench.findings.ranks import ranks
from bench.findings.sample import Sample


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
