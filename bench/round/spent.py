"""Measures what a worker's own work takes in a round: gradients, and everything else besides exchanges."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.round.ledger import Ledger


class Spent:
    """Adds the seconds to a ledger: `compute_s` and `compression_s`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count what happens inside as gradients."""
        started = time.perf_counter()
        yield
        self.ledger.compute_s += time.perf_counter() - started

    def in_computing(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Count each call as gradients."""

        def counted(*args: Any) -> Any:
            with self.computing():
                return work(*args)

        return counted

    @contextmanager
    def compressing(self) -> Iterator[None]:
        """Count what happens inside, but for gradients and exchanges, as compression."""
        ledger = self.ledger
        started, others = time.perf_counter(), self._counted()
        yield
        ledger.compression_s += time.perf_counter() - started - (self._counted() - others)

    def _counted(self) -> float:
        return self.ledger.compute_s + self.ledger.waited_s + self.ledger.measured_s
