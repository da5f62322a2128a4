"""The memory that ten workers with a ResNet18 under SASG occupy from round to round."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.collectives.simulated import SimulatedWorld
from bench.gradients.engines.loop import DenseGradients
from bench.gradients.layout import Layout
from bench.round.cohort import Cohort
from bench.rules import LASGWK2, View
from bench.suite.models.resnet import resnet18
from bench.tests.found import RECIPES


def tensors(state: Any) -> Iterator[Tensor]:
    """Yield every tensor in a tree of dictionaries and bench's own objects."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors(value)
    elif type(state).__module__.startswith("bench."):
        yield from tensors(vars(state) if hasattr(state, "__dict__") else {})


def test_state_of_a_resnet18(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 1.5 GB even if every worker last uploaded in a different round; the last uploads are stored sparse."""

    def one_each(self: LASGWK2, view: View, rows: Tensor) -> Tensor:
        return torch.where(rows == view.round % 10, torch.inf, 0.0)

    monkeypatch.setattr(LASGWK2, "change", one_each)
    layout = Layout(resnet18().named_parameters())
    cohort = Cohort(RECIPES["sasg"], SimulatedWorld(10), layout)
    gradient = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(0))
    matrix = gradient.expand(10, -1)  # gradients may be equal: the state has the same size

    def no_second_pass(rows: Tensor, parameters: Any) -> Any:
        raise AssertionError

    for _ in range(20):
        cohort.round(layout.vector, DenseGradients(torch.ones(10), matrix), no_second_pass, 0.01, 0)
    assert len(set(cohort.workers.past.upload_rounds.tolist())) == 10
    assert cohort.server.last is not None
    server = sum(t.nbytes for t in cohort.server.last.tensors.values())
    assert server == 10 * 111_723 * 8  # each entry: a position and a value, 4 bytes each
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(cohort)}
    # Ten errors, ten past parameter vectors, the current one, a workspace, and some positions.
    assert sum(storages.values()) == pytest.approx(22 * gradient.nbytes + server, rel=0.01)
    in_a_round = 10 * gradient.nbytes + gradient.nbytes  # gradients, and an eleventh past vector
    assert sum(storages.values()) + in_a_round <= 1.5e9
