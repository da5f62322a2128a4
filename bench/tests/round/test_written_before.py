"""Checkpoints from before the package was divided into subpackages resume, bit for bit.

`written_before/` holds the results of runs of 24 rounds at commit b4c1357, the last one before the division. For each
case, `<case>.pt` is the checkpoint of a run killed after 13 rounds, in the middle of its second epoch; `<case>.end.pt`
holds the weights, averaged buffer and ledger at the end of an uninterrupted run. They come from the cases, the module
and the data below, with imports adapted to that commit. The arithmetic is exact, so they hold on every machine. Never
regenerate them: a change that fails these tests breaks the runs of users.
"""

import ast
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning import Callback
from torch import Tensor

from bench.adversary import Random, Scale
from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.estimators import SVRG, LocalSGD
from bench.laws.kills import fit
from bench.laws.toys import Dyadic, counted, dyadic_data
from bench.round.written import refuse_other
from bench.rules import LASGPS
from bench.suite.datamodules.sharding import RoundLoader, RoundSampler
from bench.suite.datamodules.splits import IID
from bench.tests.found import RECIPES

WRITTEN = Path(__file__).parent / "written_before"
DENSE = {name: replace(RECIPES[name], downlink=None) for name in ("sasg", "gspar", "ef21")}  # as recipes answered then
CASES: dict[str, dict[str, Any]] = {
    "sasg": {"algorithm": DENSE["sasg"]},
    "sasg_ps": {"algorithm": replace(DENSE["sasg"], rule=LASGPS(smoothness=0.6))},
    "svrg_gspar": {"algorithm": DENSE["gspar"], "estimator": SVRG()},
    "ef21": {"algorithm": DENSE["ef21"]},
}


class Counting(Dyadic):
    """Has a buffer of which each worker keeps its own copy, and two learning rates."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(96))

    def training_step(self, batch: Any) -> Tensor:
        self.seen += batch[0].detach().sum(dim=0)
        return super().training_step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": [self.w], "lr": self.lr}, {"params": [self.v], "lr": self.lr / 2}]
        return torch.optim.SGD(groups, lr=self.lr)


class Rows(torch.utils.data.Dataset):
    def __getitem__(self, indices: Tensor) -> Any:
        return (dyadic_data(128).tensors[0][indices],)


class Data(lightning.LightningDataModule):
    """Eight rounds an epoch."""

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader(Rows(), RoundSampler(np.zeros(128), IID(), 4, range(4), 4, seed=1))


def ended(checkpoint: Path | None, callbacks: list[Callback], algorithm: Algorithm, **options: Any) -> dict[str, Any]:
    """Return the weights, averaged buffer and ledger at the end of a run of a case."""
    module = Counting()
    weights, ledger = fit(algorithm, Data(), callbacks, checkpoint, module=lambda: module, max_epochs=3, **options)
    return {"weights": weights, "seen": module.seen, "ledger": ledger}


@pytest.mark.parametrize("name", CASES)
def test_goes_on(name: str) -> None:
    then = torch.load(WRITTEN / f"{name}.end.pt", weights_only=True)
    now = ended(WRITTEN / f"{name}.pt", [], **CASES[name])
    assert torch.equal(now["weights"], then["weights"])
    assert torch.equal(now["seen"], then["seen"])
    ledger = {name: cost for name, cost in counted(then["ledger"]).items() if name != "modelled_s"}  # links came later
    assert {name: now["ledger"][name] for name in ledger} == ledger
    assert now["ledger"]["traffic"] is None


PARTS = [*RECIPES.values(), Scale(1, -2.0), Random(2), SVRG(3), LocalSGD(4, lr=0.1)]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: getattr(part, "name", type(part).__name__))
def test_every_field_is_compared(part: Any) -> None:
    """A field with another value is refused by name, a missing one has its default, an unknown one is refused."""
    written = repr(part)
    refuse_other("part", part, written)
    for path, value, default in settings(part):
        with pytest.raises(InputError) as refused:
            refuse_other("part", part, edited(written, path, "'another'"))
        assert str(refused.value) == f"part.{'.'.join(path)}: {value!r}; the checkpoint holds 'another'"
        if default == value:
            refuse_other("part", part, edited(written, path, None))
        elif default is not MISSING:
            with pytest.raises(InputError) as refused:
                refuse_other("part", part, edited(written, path, None))
            assert str(refused.value) == f"part.{'.'.join(path)}: {value!r}; the checkpoint holds {default!r}"
        with pytest.raises(InputError, match="later: no such field; the checkpoint holds 1"):
            refuse_other("part", part, edited(written, (*path[:-1], "later"), "1"))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: getattr(part, "name", type(part).__name__))
def test_another_kind_is_refused(part: Any) -> None:
    for now, then in ((None, part), (part, None), (part, LASGPS())):
        with pytest.raises(InputError) as refused:
            refuse_other("part", now, repr(then))
        assert str(refused.value) == f"part: {now!r}; the checkpoint holds {then!r}"


def settings(part: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield every field that a `repr` shows, nested parts included: its path, value and default."""
    for field in fields(part):
        if field.repr:
            here, value = (*path, field.name), getattr(part, field.name)
            yield here, value, field.default
            if is_dataclass(value):
                yield from settings(value, here)


def edited(written: str, path: tuple[str, ...], value: str | None) -> str:
    """Return a `repr` with another value of one field, or without the field if the value is None."""
    tree = ast.parse(written, mode="eval")
    call: Any = tree.body
    for name in path[:-1]:
        call = next(keyword.value for keyword in call.keywords if keyword.arg == name)
    call.keywords = [keyword for keyword in call.keywords if keyword.arg != path[-1]]
    if value is not None:
        call.keywords.append(ast.keyword(path[-1], ast.parse(value, mode="eval").body))
    return ast.unparse(tree)
