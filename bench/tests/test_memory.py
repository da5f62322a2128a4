"""What ten workers with a ResNet18 under SASG keep from round to round."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.engines.loop import DenseGradients
from bench.layout import Layout
from bench.link import StarLink
from bench.round import Cohort
from bench.rules import LASGWK2, View
from bench.tests.found import RECIPES
from bench.world import SimulatedWorld
from models.resnet import resnet18


def tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor in a tree of objects."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors(value)


def test_state_of_a_resnet18(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 1.5 GB at its largest, when every worker last uploaded in a round of its own; last uploads are sparse."""

    def one_each(self: LASGWK2, view: View, rows: Tensor) -> Tensor:
        return torch.where(rows == view.round % 10, torch.inf, 0.0)

    monkeypatch.setattr(LASGWK2, "change", one_each)
    layout = Layout(resnet18().named_parameters())
    cohort = Cohort(RECIPES["sasg"], SimulatedWorld(10), StarLink(), layout)
    gradient = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(0))
    matrix = gradient.expand(10, -1)  # equal gradients do: what is kept is as large

    def no_second_pass(rows: Tensor, parameters: Any) -> Any:
        raise AssertionError

    for _ in range(20):
        cohort.round(layout.vector, DenseGradients(torch.ones(10), matrix), no_second_pass, 0.01, 0)
    assert len(set(cohort.workers.upload_rounds.tolist())) == 10
    assert cohort.server.last is not None
    state = {"workers": vars(cohort.workers), "server": cohort.server.last.tensors, "buffers": {"w": cohort.workspace}}
    sizes = {name: sum(t.nbytes for t in tensors(part)) for name, part in state.items()}
    assert sizes["server"] == 10 * 111_723 * 12  # a position and a value each
    assert sum(sizes.values()) == pytest.approx(0.952e9, rel=0.01)
    assert sum(sizes.values()) + 10 * gradient.nbytes <= 1.5e9  # with the gradients of a round
