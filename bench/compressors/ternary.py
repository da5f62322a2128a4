"""Ternary: −1, 0 or +1 an entry. What a majority vote returns where nobody voted, or votes tie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.compressors.base import Compressor, Segments
from bench.message import Message
from bench.noise import Noise
from bench.positions import PositionCode

HEADER_BITS = 40  # which of the codes, and how many positions it names
ZEROS, ENTRIES, TRITS = range(3)
POWERS = 3 ** np.arange(5, dtype=np.uint8)  # five entries a byte: 3⁵ = 243


@dataclass(frozen=True)
class TernaryMessage(Message):
    """−1, 0 or +1 an entry. `values`: (R, d) int8. `intact`: (R,) bool, whether the vectors were finite.

    A row takes the shortest of three codes, which keeps within 3 % of the entropy of long rows with as many −1 as +1:
    the positions of its zeros and a bit for every other entry; the positions of its entries and a bit for each; or
    five entries a byte. Without zeros that is one bit an entry.
    """

    values: Tensor
    intact: Tensor
    dtype: torch.dtype
    kind = "ternary"

    @property
    def num_bits(self) -> Tensor:
        return torch.tensor([HEADER_BITS + _shortest(row)[2] for row in self.values.cpu().numpy()])

    def encode(self, row: int) -> np.ndarray:
        values = self.values[row].cpu().numpy()
        code, named, _ = _shortest(values)
        header = [np.array([code], np.uint8), np.array([len(named)], ">u4").view(np.uint8)]
        if code == TRITS:
            trits = np.pad(values + 1, (0, -len(values) % 5)).astype(np.uint8)
            return np.concatenate([*header, trits.reshape(-1, 5) @ POWERS])
        positions = [_positions(len(values), len(named)).encode(torch.from_numpy(named))] if len(named) else []
        return np.concatenate([*header, np.packbits(values[values != 0] < 0), *positions])

    def decode(self, payloads: Sequence[np.ndarray]) -> "TernaryMessage":
        rows = np.stack([_decoded(payload, self.values.shape[1]) for payload in payloads])
        values = torch.from_numpy(rows).to(self.values.device)
        return TernaryMessage(values, torch.ones(len(rows), dtype=torch.bool, device=values.device), self.dtype)

    def dense(self) -> Tensor:
        return self.values.to(self.dtype)

    def finite(self) -> Tensor:
        return self.intact


@dataclass(frozen=True)
class Ternary(Compressor):
    """C(x) = sign(x), three-valued: zeros stay zero."""

    def compress(self, x: Tensor, segments: Segments, noise: Sequence[Noise]) -> TernaryMessage:
        return TernaryMessage(x.sign().to(torch.int8), x.isfinite().all(dim=1), x.dtype)

    def blank(self, num_rows: int, segments: Segments, like: Tensor) -> TernaryMessage:
        return self.compress(like.new_zeros(num_rows, sum(segments)), segments, ())

    def num_bits_paper(self, message: Message) -> Tensor:
        return message.num_bits

    def contraction(self, segments: Segments) -> None:
        return None  # whatever the length of x, a sign has length √d


def _shortest(values: np.ndarray) -> tuple[int, np.ndarray, int]:
    """(d,) values -> the code they take, the positions it names, and its bits after the header."""
    is_zero = values == 0
    num_entries = len(values) - int(np.count_nonzero(is_zero))
    code, named = (ENTRIES, ~is_zero) if 2 * num_entries < len(values) else (ZEROS, is_zero)
    named, num_bits = np.flatnonzero(named), num_entries
    if len(named):
        num_bits += int(_positions(len(values), len(named)).num_bits(torch.from_numpy(named)[None]))
    if (num_bits_of_trits := 8 * -(-len(values) // 5)) < num_bits:
        return TRITS, named[:0], num_bits_of_trits
    return code, named, num_bits


def _decoded(payload: np.ndarray, dim: int) -> np.ndarray:
    """The inverse of `encode`: bytes -> (d,) int8."""
    code, num_named, body = payload[0], int(payload[1:5].copy().view(">u4")[0]), payload[HEADER_BITS // 8 :]
    if code == TRITS:
        return (body[:, None] // POWERS % 3).astype(np.int8).ravel()[:dim] - 1
    num_entries = dim - num_named if code == ZEROS else num_named
    num_bytes = -(-num_entries // 8)
    has_entry = np.full(dim, code == ZEROS)
    if num_named:
        has_entry[_positions(dim, num_named).decode(body[num_bytes:]).numpy()] ^= True
    values = np.zeros(dim, np.int8)
    values[has_entry] = 1 - 2 * np.unpackbits(body[:num_bytes])[:num_entries].astype(np.int8)
    return values


def _positions(dim: int, num_named: int) -> PositionCode:
    return PositionCode((dim,), (num_named,))
