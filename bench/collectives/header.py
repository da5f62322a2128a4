"""What the owner of a slice tells with its answer."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np

from bench.collectives.collective import Served


class Header(NamedTuple):
    """Sent ahead of an answer.

    Attributes:
        finite: whether the answer is free of NaN and infinity.
        served_s: seconds that it took to decode the pieces, to aggregate them and to encode the answer.
        broken: (M,) bool, the workers whose pieces are not finite.
        damaged: whether a piece cannot be decoded.
    """

    finite: bool
    served_s: float
    broken: np.ndarray
    damaged: bool = False

    @classmethod
    def of(cls, served: Served | None, num_workers: int, served_s: float, damaged: bool) -> Self:
        """`served`: what the server made of the pieces; None of no entries, or of damaged ones."""
        broken = np.zeros(num_workers, bool)
        if served is None:
            return cls(True, served_s, broken, damaged)
        broken[served.broken] = True
        return cls(served.finite, served_s, broken)

    def pack(self) -> np.ndarray:
        """As uint8, `num_bytes` of them."""
        return np.array([self.finite, self.served_s, self.damaged, *self.broken], np.float64).view(np.uint8)

    @classmethod
    def unpack(cls, payload: np.ndarray) -> Self:
        """The inverse of `pack`."""
        finite, served_s, damaged, *broken = payload.copy().view(np.float64)
        return cls(bool(finite), float(served_s), np.array(broken, bool), bool(damaged))

    @staticmethod
    def num_bytes(num_workers: int) -> int:
        return 8 * (3 + num_workers)


def broken_in(headers: Iterable[Header]) -> list[int]:
    """The workers whose pieces are not finite in any slice."""
    return np.flatnonzero(np.any([header.broken for header in headers], axis=0)).tolist()


def wait_for_slowest(headers: Sequence[Header], own: Header) -> float:
    """The seconds for which the process of this header had nothing to do but to wait for the others' answers."""
    return max(header.served_s for header in headers) - own.served_s
