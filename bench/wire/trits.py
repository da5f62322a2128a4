"""Ternary vectors as bytes: −1, 0 or +1 per entry.

A vector takes the shortest of three codes: the positions of its zeros and one bit for every other entry; the positions
of its non-zero entries and one bit for each; or five entries per byte. The shortest is within 3 % of the entropy for
long vectors with as many −1 as +1. Without zeros it takes one bit per entry.
"""

import numpy as np
import torch

from bench.errors import DamagedError
from bench.wire.positions import PositionCode
from bench.wire.reader import Reader

HEADER_BITS = 40  # which of the codes, and the number of positions in it
ZEROS, ENTRIES, TRITS = range(3)
POWERS = 3 ** np.arange(5, dtype=np.uint8)  # five entries per byte: 3⁵ = 243


def num_bits(values: np.ndarray) -> int:
    """Return the bits that `encode` writes for values (d,) int8, without padding."""
    return HEADER_BITS + _shortest(values)[2]


def encode(values: np.ndarray) -> np.ndarray:
    """Encode values (d,) int8 as bytes."""
    code, named, _ = _shortest(values)
    header = [np.array([code], np.uint8), np.array([len(named)], ">u4").view(np.uint8)]
    if code == TRITS:
        trits = np.pad(values + 1, (0, -len(values) % 5)).astype(np.uint8)
        return np.concatenate([*header, trits.reshape(-1, 5) @ POWERS])
    positions = [_positions(len(values), len(named)).encode(torch.from_numpy(named))] if len(named) else []
    return np.concatenate([*header, np.packbits(values[values != 0] < 0), *positions])


def decode(payload: np.ndarray, dim: int) -> np.ndarray:
    """Invert `encode`: return values (d,) int8.

    Raises:
        DamagedError: the bytes are not such a vector.
    """
    values = read(reader := Reader(payload), dim)
    reader.end()
    return values


def read(reader: Reader, dim: int) -> np.ndarray:
    """Decode the values (d,) int8 that come next in a payload, as `decode` does."""
    code = int(reader.bytes(1, "code of trits")[0])
    if code > TRITS:
        raise DamagedError(f"code of trits: {code}; at most {TRITS} is possible")
    num_named = reader.number(0 if code == TRITS else dim, "number of positions")
    if code == TRITS:
        packed = reader.bytes(-(-dim // 5), "trits")
        digits = (packed[:, None] // POWERS % 3).astype(np.int8).ravel()
        if (packed >= 3**5).any() or digits[dim:].any():
            raise DamagedError("trits: padding is not zero, or a byte above 242")
        return digits[:dim] - 1
    num_entries = dim - num_named if code == ZEROS else num_named
    signs = reader.bits(num_entries, "signs")
    has_entry = np.full(dim, code == ZEROS)
    if num_named:
        has_entry[_positions(dim, num_named).read(reader).numpy()] ^= True
    values = np.zeros(dim, np.int8)
    values[has_entry] = 1 - 2 * signs.astype(np.int8)
    return values


def _shortest(values: np.ndarray) -> tuple[int, np.ndarray, int]:
    """Return the shortest code of values (d,), the positions that it lists, and its bits after the header."""
    is_zero = values == 0
    num_entries = len(values) - int(np.count_nonzero(is_zero))
    code, named = (ENTRIES, ~is_zero) if 2 * num_entries < len(values) else (ZEROS, is_zero)
    named, num_bits = np.flatnonzero(named), num_entries
    if len(named):
        num_bits += int(_positions(len(values), len(named)).num_bits(torch.from_numpy(named)[None]))
    if (num_bits_of_trits := 8 * -(-len(values) // 5)) < num_bits:
        return TRITS, named[:0], num_bits_of_trits
    return code, named, num_bits


def _positions(dim: int, num_named: int) -> PositionCode:
    return PositionCode((dim,), (num_named,))
