"""The learning rate of a round: as given, as upload rules use it, and where it is 0."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.errors import InputError
from bench.gradients.layout import Layout


@dataclass(frozen=True)
class Rate:
    """γ of one round.

    Args:
        value: a number for all entries, or a vector (d,) where parameter groups differ.
    """

    value: float | Tensor

    @property
    def largest(self) -> float:
        """The rate to use where one number is needed."""
        return float(self.value.max()) if isinstance(self.value, Tensor) else self.value

    @property
    def fingerprint(self) -> float:
        """A number by which processes compare their rates: γ itself, or a weighted mean of the vector."""
        if not isinstance(self.value, Tensor):
            return self.value
        weights = torch.linspace(1, 2, len(self.value), dtype=torch.float64, device=self.value.device)
        return float((self.value * weights).mean())

    def over(self, direction: Tensor) -> Tensor:
        """The direction (d,) divided by γ; 0 where γ is 0, as nothing moves there."""
        if isinstance(self.value, Tensor):
            return torch.where(self.value == 0, 0.0, direction / self.value)
        return direction / self.value if self.value else torch.zeros_like(direction)

    def standing(self, units: str, bounds: tuple[int, int] | None = None) -> Tensor | slice | None:
        """The entries that are sent as 0, and whose errors stay, as their rate is 0; None if there are none.

        Args:
            units: of messages: only updates contain the rate.
            bounds: of the slice whose entries are meant; all of (d,) if None.
        """
        if units != "update":
            return None
        if isinstance(self.value, Tensor):
            zeros = self.value[slice(*bounds) if bounds else slice(None)] == 0
            return zeros if zeros.any() else None
        return None if self.value else slice(None)


def rate_of(optimizer: Any, layout: Layout) -> float | Tensor:
    """γ of an optimizer: a number, or a vector (d,) where its parameter groups differ.

    Raises:
        InputError: one is negative, infinite or NaN, as an optimizer or a schedule may have made it; or there is none.
    """
    groups = optimizer.param_groups
    for group in groups:
        if group.get("lr") is None:
            told = f"learning rate: none in {type(optimizer).__name__}'s param_groups"
            raise InputError(f"{told}; a number is needed, such as lr=1e-3")
    rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
    by_tensor = [rates.get(id(p), float(groups[0]["lr"])) for p in layout.parameters]
    for rate in (different := set(by_tensor)):
        if not 0 <= rate < math.inf:
            raise InputError(f"learning rate: {rate}; a finite number, at least 0, is needed in every round")
    if len(different) == 1:
        return by_tensor[0]
    sizes = torch.tensor(layout.sizes, device=layout.vector.device)
    return torch.repeat_interleave(layout.vector.new_tensor(by_tensor), sizes)


@contextmanager
def set_aside(kept: Tensor, entries: Tensor | slice | None) -> Iterator[None]:
    """Within, the kept vectors (n, d) are 0 in these entries; afterwards they are there as before."""
    if entries is None:
        yield
        return
    waiting = kept[:, entries].clone()
    kept[:, entries] = 0
    yield
    kept[:, entries] = waiting


@dataclass
class LaggedRate:
    """The learning rate that thresholds use: within an epoch, the last one of the epoch before."""

    epoch: int = 0
    latest: float | None = None
    lagged: float | None = None

    def follow(self, learning_rate: float, epoch: int) -> tuple[float | None, float | None]:
        """The round's rate -> the rates for its thresholds: the latest, and the one lagging by an epoch.

        Each is the last one above 0, as a rate of 0 moves nothing; None if there was none yet. In the first epoch both
        are the same.
        """
        if epoch > self.epoch:
            self.epoch, self.lagged = epoch, self.latest
        if learning_rate > 0:
            self.latest = learning_rate
        return self.latest, self.latest if self.lagged is None else self.lagged
