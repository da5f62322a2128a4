"""Colours can be told apart, also by the colour-blind."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pytest

from bench.findings.figures import UNDRAWN
from bench.findings.look import COLORS, DARK, OTHERS, PALETTES, TITLES, color, shortest
from bench.recipes import recipe_names
from bench.runs.columns import BY_WORKER, COLUMNS

# Linear RGB as perceived with each type of colour vision (Machado, Oliveira, Fernandes 2009, severity 1).
VISIONS = {
    "trichromat": np.eye(3),
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanope": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.95047, 1, 1.08883])


def lab(code: str, vision: str) -> np.ndarray:
    """CIELAB coordinates of a colour as perceived with this colour vision."""
    rgb = np.array([int(code[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ np.clip(np.array(VISIONS[vision]) @ linear, 0, 1) / WHITE, 1e-4))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def near(colors: Mapping[str, str], vision: str) -> set[tuple[str, str]]:
    """The pairs that differ by less than 12 units of CIELAB; about two units are just noticeable."""
    seen = {name: lab(code, vision) for name, code in colors.items()}
    return {pair for pair in combinations(seen, 2) if np.linalg.norm(seen[pair[0]] - seen[pair[1]]) < 12}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_are_told_apart(palette: str, vision: str) -> None:
    assert near(PALETTES[palette], vision) == set()


def test_colours_are_of_recipes() -> None:
    """A new recipe needs no colour of its own: recipes without one share `OTHERS`."""
    assert set(COLORS) <= set(recipe_names())
    assert set(DARK) == set(COLORS)
    assert color("newcomer") == OTHERS


def test_every_column_has_a_title() -> None:
    untitled = {"epoch", "downlink_bits", "control_bits", "num_backwards", *UNDRAWN, *BY_WORKER}
    assert set(COLUMNS) - untitled <= set(TITLES)


def test_settings_are_written_shortly() -> None:
    """As a fraction where that is shorter, and never as another number."""
    values = ("0.015625", "9.765625e-05", "0.25", "0.1", "0.003", "1e-3", "3e-05", "1.0", "0", "-0.5", "invert", "inf")
    short = [shortest(value) for value in values]
    assert short == ["1/64", "1/10240", "1/4", "0.1", "0.003", "0.001", "3e-05", "1", "0", "-0.5", "invert", "inf"]
