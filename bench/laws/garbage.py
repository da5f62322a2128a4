"""Whatever bytes arrive, a decoder gives a message of its schema or raises DamagedError."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compressors import Compressor
from bench.errors import DamagedError
from bench.kernels.noise import Noise
from bench.wire.message import Message

SEGMENTS = (300, 5, 40, 1)
DIM = sum(SEGMENTS)
BOUNDS = (0, 128, 256, DIM)


@cache
def sent(compressor: Compressor) -> list[tuple[Message, np.ndarray]]:
    """Schemas and payloads of messages and, where these can be cut, of their slices: of a full vector and of zeros."""
    schema, found = compressor.blank(1, SEGMENTS, torch.zeros(DIM)), []
    for x in (torch.randn(1, DIM, generator=torch.Generator().manual_seed(1)), torch.zeros(1, DIM)):
        message = compressor.compress(x, SEGMENTS, [Noise(0, 0, 0)])
        found.append((schema, message.encode(0)))
        if message.cuttable:
            pieces = zip(schema.cut(BOUNDS), message.cut(BOUNDS), strict=True)
            found += [(of_slice, piece.encode(0)) for of_slice, piece in pieces]
    return found


def read(schema: Message, payload: np.ndarray) -> bool:
    """Whether a payload is a message, which then has the schema's shape."""
    try:
        message = schema.decode([payload])
    except DamagedError:
        return False
    dense = message.dense()
    assert dense.shape == schema.dense().shape
    assert dense.dtype == schema.dense().dtype
    assert message.num_rows == 1
    message.sum()
    return True


def damaged(payload: np.ndarray, draw: Callable[..., Any]) -> np.ndarray:
    """A payload with some of its bytes replaced, or one of another length."""
    kind = draw(st.sampled_from(["flip", "flip", "fill", "random", "head"]))
    if kind == "random" or not len(payload):
        return np.frombuffer(draw(st.binary(max_size=200)), np.uint8).copy()
    changed = payload.copy()
    if kind == "head":  # where codes, counts and lengths are
        head = np.frombuffer(draw(st.binary(max_size=12)), np.uint8)[: len(changed)]
        changed[: len(head)] = head
        return changed
    at = draw(st.integers(0, len(changed) - 1))
    if kind == "fill":
        changed[at : at + draw(st.integers(1, 8))] = draw(st.sampled_from([0, 255]))
    else:
        changed[at] ^= 1 << draw(st.integers(0, 7))
    return changed


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.data())
def _garble(compressor: Compressor, data: st.DataObject) -> None:
    schema, payload = data.draw(st.sampled_from(sent(compressor)))
    read(schema, damaged(payload, data.draw))


def garbled_bytes_are_refused(compressor: Compressor) -> None:
    """Flipped, overwritten and random bytes raise DamagedError, or are another message of the schema."""
    _garble(compressor)


def bytes_too_few_or_too_many_are_refused(compressor: Compressor) -> None:
    """A message that was cut or extended is never read."""
    for schema, payload in sent(compressor):
        assert read(schema, payload)
        for length in {*range(min(len(payload), 20)), len(payload) // 2, len(payload) - 1} - {-1}:
            assert not read(schema, payload[:length])
        for more in ([0], [255], [0] * 100):
            assert not read(schema, np.concatenate([payload, np.array(more, np.uint8)]))


ON_COMPRESSORS = (garbled_bytes_are_refused, bytes_too_few_or_too_many_are_refused)
