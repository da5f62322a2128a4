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


@numba.njit(nogil=True, cache=True)
def above_and_between(bits: np.ndarray, mask: np.int32, low: np.int32, high: np.int32) -> tuple[np.ndarray, np.ndarray]:
    """Return the sets of entries above `high`, and of those from `low` to `high`.

    Args:
        bits: (n,) int32, of which the bits in `mask` count.
    """
    num_words = -(-bits.size // WORD)
    above, amid = np.zeros(num_words, np.uint64), np.zeros(num_words, np.uint64)
    whole = bits.size // WORD
    for word in range(whole):
        top, part = np.uint64(0), np.uint64(0)
        for j in range(WORD):
            entry = bits[word * WORD + j] & mask
            top |= np.uint64(entry > high) << np.uint64(j)
            part |= np.uint64(entry >= low) << np.uint64(j)
        above[word], amid[word] = top, part & ~top
    for i in range(whole * WORD, bits.size):
        entry = bits[i] & mask
        above[whole] |= np.uint64(entry > high) << np.uint64(i % WORD)
        amid[whole] |= np.uint64(low <= entry <= high) << np.uint64(i % WORD)
    return above, amid


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
def size(words: np.ndarray) -> np.int64:
    """Return how many positions a set has."""
    count = np.uint64(0)
    for word in words:  # the bits of each pair, of each four, and so on, side by side
        word = word - ((word >> ONE) & np.uint64(0x5555555555555555))
        word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
        word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        count += (word * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return np.int64(count)


@numba.njit(nogil=True, cache=True)
def positions(words: np.ndarray, start: int, out: np.ndarray) -> None:
    """Write the positions of a set, ascending, plus `start`, to `out`, which has room for all."""
    filled = 0
    for i in range(words.size):
        word = words[i]
        while word:
            out[filled] = start + i * WORD + np.int64(lowest(word))
            filled += 1
            word &= word - ONE


@numba.njit(nogil=True, cache=True)
def insert(words: np.ndarray, position: int, member: np.int64) -> None:
    """Add a position to a set if `member` is 1; nothing if it is 0. There is no branch to predict."""
    words[position // WORD] |= np.uint64(member) << np.uint64(position % WORD)
