"""What an exchange between processes takes: seconds and bytes."""

from typing import NamedTuple, Self

import numpy as np

Bytes = np.ndarray | int


class Transit(NamedTuple):
    """Seconds as this process sees them; bytes by rank, as the collective moves them. All 0 in a simulation.

    Attributes:
        waited_s: in the exchange of reports, and for the slowest server: faster workers wait for slower ones.
        measured_s: in the exchanges after it, while no process computes.
        sent_bytes, received_bytes: (M,), those of reports and of padding included. A message to several others counts
            once for each.
    """

    waited_s: float = 0.0
    measured_s: float = 0.0
    sent_bytes: Bytes = 0
    received_bytes: Bytes = 0

    def __add__(self, other: Self) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self)(
            self.waited_s + other.waited_s,
            self.measured_s + other.measured_s,
            self.sent_bytes + other.sent_bytes,
            self.received_bytes + other.received_bytes,
        )

    @classmethod
    def to_all(cls, num_bytes: np.ndarray, waited_s: float = 0.0, measured_s: float = 0.0) -> Self:
        """Of an exchange in which every worker sends the same to each other one. `num_bytes`: (M,) what it sends."""
        return cls(waited_s, measured_s, num_bytes * (len(num_bytes) - 1), num_bytes.sum() - num_bytes)

    @classmethod
    def in_pieces(cls, sizes: np.ndarray, measured_s: float) -> Self:
        """Of an exchange in which every worker sends each other one something else.

        Args:
            sizes: (M, M) bytes from the worker of a row to that of a column.
            measured_s: seconds in transit.
        """
        own = sizes.diagonal()
        return cls(0.0, measured_s, sizes.sum(axis=1) - own, sizes.sum(axis=0) - own)
