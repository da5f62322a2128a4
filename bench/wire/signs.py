"""Signs as bits: entry i of a vector is bit i mod 8 of byte ⌊i/8⌋, set if the entry is below zero.

+0 and −0 count as positive. On the wire a sign takes its bit; under the code "plain" a byte, 0 or 1. Compiled for
float32 on the CPU, where packing and unpacking together cost about one plain copy of the vector; other tensors use
torch operations.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from bench.errors import DamagedError
from bench.kernels.passes import is_compiled
from bench.wire.integers import Code
from bench.wire.reader import Reader

BLOCK = 512  # bytes whose counts stay in the L1 cache while all rows are added


def pack(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pack (R, n) to bits (R, ⌈n/8⌉) uint8; also return (R,) bool: whether a row is free of NaN and infinity."""
    if not is_compiled(x):
        return _pack_plain(x < 0), x.isfinite().all(dim=1)
    bits = torch.empty(len(x), -(-x.shape[1] // 8), dtype=torch.uint8)
    finite = torch.empty(len(x), dtype=torch.bool)
    _pack(x.detach().contiguous().numpy(), bits.numpy(), finite.numpy())
    return bits, finite


def unpack(bits: Tensor, out: Tensor) -> Tensor:
    """Unpack bits (R, ⌈n/8⌉) to ±1 per entry, written to `out` (R, n)."""
    if is_compiled(out):
        _unpack(bits.numpy(), out.numpy())
    else:
        out.copy_(_unpack_plain(bits, out.shape[1])).mul_(-2).add_(1)
    return out


def add_up(bits: Tensor, out: Tensor) -> Tensor:
    """Sum the R vectors of ±1 that the bits (R, ⌈n/8⌉) represent, into `out` (n,)."""
    if is_compiled(out):
        counts = np.empty(8 * BLOCK, np.uint16 if len(bits) < 2**16 else np.uint32)
        _add_up(bits.numpy(), counts, out.numpy())
    else:
        out.fill_(len(bits))
        for row in bits.split(1):
            out.sub_(_unpack_plain(row, len(out))[0], alpha=2)
    return out


def num_bits(num_entries: int, code: Code | None) -> int:
    """Return the bits of so many signs on the wire, without padding."""
    return num_entries * (8 if code == "plain" else 1)


def encode(bits: Tensor, num_entries: int, code: Code | None) -> np.ndarray:
    """Encode packed signs (⌈n/8⌉,) of n entries as bytes."""
    packed = bits.cpu().numpy()
    return np.unpackbits(packed, bitorder="little")[:num_entries] if code == "plain" else packed


def read(reader: Reader, num_entries: int, code: Code | None) -> Tensor:
    """Decode the packed signs (⌈n/8⌉,) of n entries that come next in a payload.

    Raises:
        DamagedError: the bytes are not such signs.
    """
    if code != "plain":
        return reader.packed_signs(num_entries)
    flags = reader.bytes(num_entries, "signs")
    if (flags > 1).any():
        raise DamagedError("signs: a byte is neither 0 nor 1")
    return torch.from_numpy(np.packbits(flags, bitorder="little"))


def _pack_plain(flags: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(flags, (0, -flags.shape[1] % 8)).unflatten(1, (-1, 8))
    places = torch.arange(8, dtype=torch.uint8, device=flags.device)
    return (padded.to(torch.uint8) << places).sum(dim=2, dtype=torch.uint8)


def _unpack_plain(bits: Tensor, num_entries: int) -> Tensor:
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits[:, :, None] >> places).bitwise_and_(1).flatten(1)[:, :num_entries]


@numba.njit(nogil=True, cache=True)
def _pack(x: np.ndarray, bits: np.ndarray, finite: np.ndarray) -> None:
    num_rows, num_entries = x.shape
    for row in range(num_rows):
        flaws = np.uint8(0)
        for b in range(num_entries // 8):
            byte, sound = np.uint8(0), np.uint8(0)
            for j in range(8):
                value = x[row, 8 * b + j]
                byte |= np.uint8(value < 0) << j
                sound |= np.uint8(value - value == 0) << j  # false for NaN and infinity
            bits[row, b] = byte
            flaws |= sound ^ np.uint8(0xFF)
        if num_entries % 8:
            byte = np.uint8(0)
            for j in range(num_entries % 8):
                value = x[row, num_entries // 8 * 8 + j]
                byte |= np.uint8(value < 0) << j
                flaws |= np.uint8(value - value != 0)
            bits[row, num_entries // 8] = byte
        finite[row] = flaws == 0


@numba.njit(nogil=True, cache=True)
def _unpack(bits: np.ndarray, x: np.ndarray) -> None:
    num_rows, num_entries = x.shape
    for row in range(num_rows):
        for b in range(num_entries // 8):
            byte = np.int32(bits[row, b])
            for j in range(8):
                x[row, 8 * b + j] = np.float32(1 - 2 * ((byte >> j) & 1))
        for i in range(num_entries // 8 * 8, num_entries):
            x[row, i] = np.float32(1 - 2 * ((np.int32(bits[row, i // 8]) >> (i % 8)) & 1))


@numba.njit(nogil=True, cache=True)
def _add_up(bits: np.ndarray, counts: np.ndarray, total: np.ndarray) -> None:
    """Count the minus signs of 8 entries at once, one per bit: plane p holds bit p of each entry's count. `counts`:
    memory (8 · BLOCK,) of integers that hold R."""
    num_rows, num_bytes = bits.shape
    num_planes = 0
    while 2**num_planes <= num_rows:
        num_planes += 1
    planes, carry = np.empty((num_planes, BLOCK), np.uint8), np.empty(BLOCK, np.uint8)
    for start in range(0, num_bytes, BLOCK):
        size = min(BLOCK, num_bytes - start)
        planes[:] = 0
        for row in range(num_rows):
            for b in range(size):
                carry[b] = bits[row, start + b]
            for p in range(num_planes):
                for b in range(size):
                    overflow = planes[p, b] & carry[b]
                    planes[p, b] ^= carry[b]
                    carry[b] = overflow
        counts[:] = 0
        for p in range(num_planes):
            for b in range(size):
                byte = counts.dtype.type(planes[p, b])
                for j in range(8):
                    counts[8 * b + j] += ((byte >> counts.dtype.type(j)) & counts.dtype.type(1)) << counts.dtype.type(p)
        part = total[8 * start : min(8 * (start + size), total.size)]
        for i in range(part.size):
            part[i] = np.float32(num_rows - 2 * np.int32(counts[i]))
