"""The laws as tests, for the recipes of the package that `--recipes` names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.algorithm import Algorithm
from bench.compressors import Compressor
from bench.laws.compressors import Case
from bench.laws.recipes import goes_on_where_it_was_killed, keeps_its_golden_trace, processes_give_the_simulations_bits
from bench.laws.theirs import Theirs


def test_vectors(law: Callable[..., None], case: Case) -> None:
    """Hold a law of compressors for one vector."""
    _, compressor, segments, x = case
    law(compressor, segments, x)


def test_compressors(law: Callable[[Compressor], None], compressor: Compressor) -> None:
    """Hold a law of compressors."""
    law(compressor)


def test_recipes(law: Callable[[Algorithm], None], recipe: Algorithm) -> None:
    """Hold a law of recipes."""
    law(recipe)


def test_goes_on_where_it_was_killed(recipe: Algorithm, tmp_path: Path) -> None:
    """Hold that a killed run resumes to the same bits."""
    goes_on_where_it_was_killed(recipe, tmp_path)


def test_processes_give_the_simulations_bits(recipe: Algorithm, processes: Path) -> None:
    """Hold that real processes agree with a simulation."""
    processes_give_the_simulations_bits(recipe, recipe.name, processes)


def test_keeps_its_golden_trace(recipe: Algorithm, found: Theirs, request: pytest.FixtureRequest) -> None:
    """Hold that costs are those of the committed trace, which `--rewrite-golden` writes."""
    file = found.golden(recipe.name)
    if not keeps_its_golden_trace(recipe, file, bool(request.config.getoption("--rewrite-golden"))):
        pytest.skip(f"{file} is not there yet: --rewrite-golden writes it")
