"""Properties that every compressor must have; the compressors are found by scanning the package."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.compressors import Compressor
from bench.compressors.grid import GridMessage
from bench.compressors.natural import NaturalMessage
from bench.errors import InputError
from bench.laws.compressors import NOISE, ON_CASES, ON_COMPRESSORS, SEGMENTS, Case, cases
from bench.tests.found import CODED, COMPRESSORS, RECIPES, subclasses


def parameters(found: list[Case]) -> list[Any]:
    return [pytest.param(*case, id=name) for name, *case in found]


CASES = parameters(cases(COMPRESSORS))
WIRED = [*CASES, *parameters(cases(CODED, SEGMENTS[2:3]))]


@pytest.mark.parametrize("law", ON_CASES[:2], ids=lambda law: law.__name__)
@pytest.mark.parametrize(("compressor", "segments", "x"), WIRED)
def test_the_wire(law: Callable[..., None], compressor: Compressor, segments: tuple[int, ...], x: Tensor) -> None:
    law(compressor, segments, x)


@pytest.mark.parametrize("law", ON_CASES[2:], ids=lambda law: law.__name__)
@pytest.mark.parametrize(("compressor", "segments", "x"), CASES)
def test_vectors(law: Callable[..., None], compressor: Compressor, segments: tuple[int, ...], x: Tensor) -> None:
    law(compressor, segments, x)


@pytest.mark.parametrize("law", ON_COMPRESSORS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS.keys())
def test_compressors(law: Callable[[Compressor], None], compressor: Compressor) -> None:
    law(compressor)


def test_what_cannot_be_cut() -> None:
    whole = {type(c) for c in COMPRESSORS.values() if not c.blank(1, SEGMENTS[2], torch.zeros(346)).cuttable}
    assert {kind.__name__ for kind in whole} == {"ChunkTopK", "CosineTopK", "PowerSGD", "RandomMask", "TopKTernary"}


def test_every_compressor_is_in_a_recipe() -> None:
    assert {type(c) for c in COMPRESSORS.values()} == set(subclasses(Compressor))


@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS.keys())
def test_no_code_beats_its_bound(compressor: Compressor) -> None:
    """For long vectors of independent entries. Only codes of equally many bits for every entry are far above."""
    x = torch.randn(3, 60_000, generator=torch.Generator().manual_seed(3))
    message = compressor.compress(x, (50_000, 10_000), NOISE)
    uneven = compressor.compress(x.clone().index_fill_(1, torch.arange(45_000, 59_000), 0), (50_000, 10_000), NOISE)
    assert (uneven.num_bits / uneven.bound >= 0.97).all()  # a code may exploit that the zeros are adjacent
    over, furthest = message.num_bits / message.bound, 3 if isinstance(message, NaturalMessage | GridMessage) else 1.5
    assert message.bound.dtype == torch.float64
    assert ((over >= 1) & (over < furthest)).all()


LONG = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("x", [LONG, LONG**3, LONG.clone().index_fill_(1, torch.arange(150_000, 199_000), 0)])
@pytest.mark.parametrize("name", [name for name in CODED if name.startswith("coded")])
def test_coded_messages_are_near_their_bound(name: str, x: Tensor) -> None:
    """And no other code of theirs is shorter; what the paper counts does not depend on it."""
    coded, segments = CODED[name], (150_000, 50_000)
    message = coded.compress(x, segments, NOISE)
    assert (message.num_bits <= 1.05 * message.bound).all()
    for code in ("packed", "plain", None):
        other = replace(coded, code=code)  # pyright: ignore[reportCallIssue, reportArgumentType]
        longer = other.compress(x, segments, NOISE)
        assert (message.num_bits <= longer.num_bits * (1 if code else 1.03)).all()
        assert torch.equal(message.bound, longer.bound)
        assert torch.equal(other.num_bits_paper(longer), coded.num_bits_paper(message))


@pytest.mark.parametrize("compressor", CODED.values(), ids=CODED.keys())
def test_no_such_code(compressor: Compressor) -> None:
    with pytest.raises(InputError, match=r"code: 'zip'; one of plain, packed, coded is needed, or null"):
        replace(compressor, code="zip")  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_recipes_fit_twenty_lines() -> None:
    from importlib.resources import files

    for name in RECIPES:
        assert len((files("bench.suite.configs") / "algorithm" / f"{name}.yaml").read_text("utf-8").splitlines()) <= 20
