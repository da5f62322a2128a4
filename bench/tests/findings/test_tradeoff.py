"""The trade-off: its front, and the names of its points."""

import json
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Annotation

from bench.errors import InputError
from bench.findings.experiments import Arm
from bench.findings.tradeoff import End, front, tradeoff
from bench.findings.view import ViewedRun
from bench.recipes import recipe_names


def arms(folder: Path, ends: Sequence[tuple[float, float] | None]) -> list[Arm]:
    """An arm of one run for each pair of bits and accuracy; None: it diverged."""
    found = list[Arm]()
    for at, end in enumerate(ends):
        recipe = recipe_names()[at % len(recipe_names())]
        run = ViewedRun(folder / f"{recipe}-{at}" / "seed=1")
        run.write_config({"algorithm": {"name": recipe}, "seed": 1})
        summary = {"diverged": 3} if end is None else dict(zip(("total_bits", "test_accuracy"), end, strict=True))
        (run.path / "summary.json").write_text(
            json.dumps(summary | {"round": 9, "target": {"metric": "test_accuracy", "value": 0.9, "round": 5}})
        )
        found.append(Arm(f"{recipe}-{at}", [run]))
    return found


@pytest.mark.parametrize("falls", [True, False])
def test_the_front_is_what_nothing_beats(falls: bool) -> None:
    """Of points some of which share a cost or a value: what is on it, by rising cost."""
    for seed in range(20):
        places = np.random.default_rng(seed).integers(0, 8, (12, 2)).tolist()
        found = front([End(Arm("sgd", []), x, y, 0.0) for x, y in places], falls)
        sign = 1 if falls else -1
        beaten = [
            p for p, q in product(places, places) if p != q and q[0] <= p[0] and sign * q[1] <= sign * p[1]
        ]  # fmt: skip
        assert [(end.x, end.y) for end in found] == sorted({(x, y) for x, y in places if [x, y] not in beaten})


@pytest.mark.parametrize("spread", [1.0, 0.05])
def test_names_cover_no_name_and_no_point(spread: float, tmp_path: Path) -> None:
    """Of 33 arms, also where they lie close together; all are read within the figure."""
    draws = np.random.default_rng(0).normal(size=(33, 2)) * spread
    drawn = tradeoff(arms(tmp_path, [(10 ** (9 + x / 2), 0.9 + y / 100) for x, y in draws]))
    drawn.draw_without_rendering()
    (axes,) = drawn.axes
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert len(names) == 33
    # without the line that leads to the point, and the room above and below letters
    boxes = [np.array(super(Annotation, name).get_window_extent().shrunk(1, 0.7).extents) for name in names]
    for one, other in combinations(boxes, 2):
        assert (one[2:] <= other[:2]).any() or (other[2:] <= one[:2]).any()
    points = axes.transData.transform([name.xy for name in names])
    for box, point in product(boxes, points):
        assert (point < box[:2]).any() or (point > box[2:]).any()
    for box in boxes:
        assert (box[:2] >= 0).all()
        assert (box[2:] <= drawn.get_window_extent().max).all()


def test_arms_that_are_not_drawn_are_named(tmp_path: Path) -> None:
    """Those beyond the axes and those that diverged; if all did, there is nothing to draw."""
    found = arms(tmp_path, [(1e9, 0.9), (2e9, 0.1), None, (1e12, 0.95)])
    limits = {"test_accuracy": (0.8, 1.0), "total_bits": (1e8, 1e10)}
    (axes,) = tradeoff(found, limits=limits).axes
    assert [text.get_text() for text in axes.texts] == [found[0].name]
    assert f"Beyond the axes: {found[1].name} (10 %), {found[3].name} (95 %)" in axes.get_xlabel()
    assert f"Diverged: {found[2].name}" in axes.get_xlabel()
    with pytest.raises(InputError, match=r"figure\.y: test_accuracy; every arm diverged"):
        tradeoff([found[2]])
