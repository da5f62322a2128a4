"""Whatever bytes arrive, a decoder gives a message of its schema or raises DamagedError."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.compressors import QSGD, Compressor, Grid, GSpar, ScaledSign, Ternary, TopKTernary
from bench.errors import DamagedError
from bench.kernels.noise import Noise
from bench.laws.garbage import ON_COMPRESSORS
from bench.tests.found import CODED, COMPRESSORS

EVERY = {**COMPRESSORS, **CODED}


@pytest.mark.parametrize("law", ON_COMPRESSORS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("compressor", EVERY.values(), ids=EVERY.keys())
def test_garbage(law: Callable[[Compressor], None], compressor: Compressor) -> None:
    law(compressor)


@pytest.mark.parametrize("compressor", [ScaledSign(), QSGD(4), Grid(4), TopKTernary(0.5), GSpar(0.5)], ids=str)
def test_a_scale_is_not_negative(compressor: Compressor) -> None:
    """One flipped bit there would reverse a whole segment."""
    x = torch.tensor([[3.0, -1.0, 2.0, 0.5, -4.0, 1.0, 2.5, -0.5]])
    payload = compressor.compress(x, (8,), [Noise(0, 0, 0)]).encode(0).copy()
    refused = 0
    for at in range(len(payload)):
        garbled = payload.copy()
        garbled[at] ^= 0x80
        try:
            compressor.blank(1, (8,), x).decode([garbled])
        except DamagedError as error:
            refused += "at least 0 is possible" in str(error)
    assert refused == 1


def test_nothing_is_allocated_for_too_few_bytes() -> None:
    dim = 10_000_000
    schema = Ternary().blank(1, (dim,), torch.empty(dim))
    every = np.array([dim], ">u4").view(np.uint8)  # as if all entries were named, in positions of no bits
    payload = np.concatenate([np.zeros(1, np.uint8), every, np.zeros(8, np.uint8)])
    tracemalloc.start()
    with pytest.raises(DamagedError):
        schema.decode([payload])
    assert tracemalloc.get_traced_memory()[1] < 2 * dim
    tracemalloc.stop()


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
