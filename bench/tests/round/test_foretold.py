"""Memory is foretold from what parts declare, and refused where there is too little."""

import pytest

from bench.collectives.simulated import SimulatedWorld
from bench.errors import InputError
from bench.gradients.layout import Layout
from bench.laws.toys import Toy, train
from bench.round import memory
from bench.round.cohort import Cohort
from bench.round.memory import foretold_bytes
from bench.tests.found import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_it_counts_what_the_cohort_keeps(name: str) -> None:
    """It grows by as much a worker as the cohort's own vectors, and never falls short of them."""
    recipe, layout = RECIPES[name], Layout(Toy().named_parameters())
    few, many = (foretold_bytes(recipe, SimulatedWorld(m), layout, "joint") for m in (1, 8))
    cohort = Cohort(recipe, SimulatedWorld(8), layout)
    kept = cohort.workers.kept.nbytes + sum(t.nbytes for t in cohort.workers.past.memory.values())
    last = sum(t.nbytes for t in cohort.server.last.tensors.values()) if cohort.server.last is not None else 0
    assert sum(many.values()) >= kept + last
    assert {part: 8 * num_bytes for part, num_bytes in few.items()} == many
    rows = 8 * layout.vector.nbytes
    assert sum(foretold_bytes(recipe, SimulatedWorld(8), layout, "loop").values()) == sum(many.values()) + rows
    assert sum(foretold_bytes(recipe, SimulatedWorld(8), layout).values()) == max(sum(many.values()), rows)


def test_what_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100)
    with pytest.raises(
        InputError, match=r"workers: 4; they take at least .* GB \(errors and momenta .*\), 1e-07 GB are free"
    ):
        train("sparse")
