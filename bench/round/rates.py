"""The learning rate of a round: as it is given, as upload rules see it, and where it is 0."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rate:
    """γ of one round.

    Args:
        value: one for all entries, or a vector (d,) where parameter groups differ.
    """

    value: float | Tensor

    @property
    def largest(self) -> float:
        """What counts where one number is needed."""
        return float(self.value.max()) if isinstance(self.value, Tensor) else self.value

    @property
    def fingerprint(self) -> float:
        """A number by which processes see whether they have the same: γ itself, or a weighted mean of the vector."""
        if not isinstance(self.value, Tensor):
            return self.value
        weights = torch.linspace(1, 2, len(self.value), dtype=torch.float64, device=self.value.device)
        return float((self.value * weights).mean())

    @property
    def zeros(self) -> Tensor | slice | None:
        """The entries of a vector (d,) whose rate is 0; None if there are none."""
        if isinstance(self.value, Tensor):
            return zeros if (zeros := self.value == 0).any() else None
        return None if self.value else slice(None)


@dataclass
class LaggedRate:
    """The learning rate as thresholds see it: within an epoch, the last one of the epoch before."""

    epoch: int = 0
    latest: float | None = None
    lagged: float | None = None

    def follow(self, learning_rate: float, epoch: int) -> tuple[float | None, float | None]:
        """The rates for this round's thresholds, given the round's own: at once, and an epoch late.

        Each is the last one above 0, as a rate of 0 moves nothing; None where there was none yet. In the first epoch
        they are the same.
        """
        if epoch > self.epoch:
            self.epoch, self.lagged = epoch, self.latest
        if learning_rate > 0:
            self.latest = learning_rate
        return self.latest, self.latest if self.lagged is None else self.lagged
