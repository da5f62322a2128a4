"""Sets of positions as words of 64 bits: the positions of some among many entries, without a branch for each.

Comparisons of consecutive entries whose results become the bits of a word compile to vector instructions, and the bits
of a word are then read off one by one: at a quarter of the entries this takes a fifth of the time of writing every
position and keeping the true ones.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

WORD = 64
ONE = np.uint64(1)


def _lowest(typing: Any, word: Any) -> Any:  # numba asks for these names
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


lowest: Any = intrinsic(_lowest)
"""The position of the lowest bit of a word that is not 0."""


def _larger(typing: Any, bits: Any, first: Any, mask: Any, threshold: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes, number = ir.VectorType(ir.IntType(32), WORD), ir.IntType(32)

        def spread(x: Any) -> Any:
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), x, ir.Constant(number, 0))
            return builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), ir.Constant(lanes, [0] * WORD))

        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        entries = builder.load(builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer()), align=4)
        larger = builder.icmp_signed(">", builder.and_(entries, spread(args[2])), spread(args[3]))
        return builder.bitcast(larger, ir.IntType(WORD))

    return types.uint64(bits, types.int64, types.int32, types.int32), generate


_larger_in_word: Any = intrinsic(_larger)
"""The comparisons of 64 entries from the first one on, all of which must be there, as the bits of a word."""


@numba.njit(nogil=True, cache=True)
def above(bits: np.ndarray, first: int, mask: np.int32, threshold: np.int32) -> np.uint64:
    """Return which of the 64 entries from `first` on lie above the threshold; those past the end do not.

    Args:
        bits: (n,) int32, contiguous, of which the bits in `mask` count.
    """
    if first + WORD <= bits.size:
        return _larger_in_word(bits, first, mask, threshold)
    word = np.uint64(0)
    for i in range(first, bits.size):
        word |= np.uint64((bits[i] & mask) > threshold) << np.uint64(i - first)
    return word


@numba.njit(nogil=True, cache=True)
def above_and_between(bits: np.ndarray, mask: np.int32, low: np.int32, high: np.int32) -> tuple[np.int64, np.ndarray]:
    """Return how many entries are above `high`, and the set of those from `low` to `high`; `low` is not below 0."""
    num_above, between = np.int64(0), np.empty(-(-bits.size // WORD), np.uint64)
    for i in range(between.size):
        top = above(bits, i * WORD, mask, high)
        num_above += num_bits(top)
        between[i] = above(bits, i * WORD, mask, np.int32(low - 1)) & ~top
    return num_above, between


@numba.njit(nogil=True, cache=True)
def nonzero(x: np.ndarray) -> np.ndarray:
    """Return the set of entries (n,) that are not 0."""
    found, whole = np.zeros(-(-x.size // WORD), np.uint64), x.size // WORD
    for word in range(whole):
        some = np.uint64(0)
        for j in range(WORD):
            some |= np.uint64(x[word * WORD + j] != 0) << np.uint64(j)
        found[word] = some
    for i in range(whole * WORD, x.size):
        found[whole] |= np.uint64(x[i] != 0) << np.uint64(i % WORD)
    return found


@numba.njit(nogil=True, cache=True)
def num_bits(word: np.uint64) -> np.int64:
    """Return how many bits of a word are set: those of each pair, of each four, and so on are added side by side."""
    word = word - ((word >> ONE) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def size(words: np.ndarray) -> np.int64:
    """Return how many positions a set has."""
    count = np.int64(0)
    for word in words:
        count += num_bits(word)
    return count


@numba.njit(nogil=True, cache=True)
def take(words: np.ndarray, start: int, x: np.ndarray, out: np.ndarray, values: np.ndarray) -> None:
    """Write the positions of a set, ascending, plus `start`, to `out`, and the entries of `x` (n,) there to `values`;
    both have room for all."""
    filled = np.uint64(0)  # numbers without a sign: where an index may be negative, numba counts from the end
    for i in range(words.size):
        word, first = words[i], np.uint64(i * WORD)
        for _ in range(num_bits(word)):
            position = first + lowest(word)
            out[filled] = np.uint64(start) + position
            values[filled] = x[position]
            filled += ONE
            word &= word - ONE


@numba.njit(nogil=True, cache=True)
def first_bits(word: np.uint64, count: np.int64) -> np.uint64:
    """Return the lowest bits of a word that are set, `count` of them, or all if there are fewer."""
    rest = word
    for _ in range(count):
        rest &= rest - ONE
        if not rest:
            break
    return word ^ rest
