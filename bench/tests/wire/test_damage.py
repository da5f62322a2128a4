"""Whatever bytes arrive, a decoder gives a message of its schema or raises DamagedError."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.compressors import Compressor
from bench.laws.garbage import ON_COMPRESSORS
from bench.tests.found import CODED, COMPRESSORS

EVERY = {**COMPRESSORS, **CODED}


@pytest.mark.parametrize("law", ON_COMPRESSORS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("compressor", EVERY.values(), ids=EVERY.keys())
def test_garbage(law: Callable[[Compressor], None], compressor: Compressor) -> None:
    law(compressor)


CHECKED = """
import sys
import numpy as np
import torch
from bench.errors import DamagedError
from bench.wire import ans, distinct, elias, signs
from bench.wire.integers import Packed
from bench.wire.reader import Reader
draw = np.random.default_rng(1)
elias_coded = elias.encode(draw.integers(-3, 4, 200).astype(np.int16))
levels, segments = draw.integers(-3, 4, 200).astype(np.int16), (150, 50)
coded = ans.encode(levels, segments, ans.model(levels, segments))
for turn in range(2000):
    payload = (elias_coded, coded)[turn % 2]
    garbled = payload[: draw.integers(len(payload) + 1)].copy()
    for at in draw.integers(0, max(len(garbled), 1), draw.integers(4)):
        garbled[at : at + draw.integers(1, 9)] = draw.integers(256)
    try:
        elias.decode(garbled, np.zeros(200, np.int16))
    except DamagedError:
        pass
    for read in (
        lambda: ans.read(Reader(garbled), segments, -3, 3),
        lambda: distinct.read(Reader(garbled), segments, torch.empty(200)),
        lambda: Packed(-3, 3).read(Reader(garbled), segments),
    ):
        try:
            read()
        except DamagedError:
            pass
    try:
        bits = Reader(garbled).packed_signs(200)[None]
        signs.unpack(bits, torch.empty(1, 200))
        signs.add_up(bits, torch.empty(200))
    except DamagedError:
        pass
"""


def test_compiled_decoders_stay_in_bounds(tmp_path: Path) -> None:
    """Compiled anew with checks of every index; functions from the cache would have none."""
    checked = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CHECKED], env=checked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
