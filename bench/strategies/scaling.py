"""Losses in half precision, scaled so that their gradients do not vanish."""

from typing import Any

from lightning.pytorch.plugins.precision import Precision
from torch import Tensor

from bench.collectives.world import World
from bench.gradients.engines import WorkerGradients


class Scaling:
    """What a Trainer's precision does to losses: under "16-mixed" they are scaled, and most others leave them alone.

    Args:
        precision: the Trainer's.
    """

    def __init__(self, precision: Precision) -> None:
        self.scaler: Any = getattr(precision, "scaler", None)

    @property
    def scale(self) -> float:
        """What losses are multiplied by, before gradients are computed."""
        return 1.0 if self.scaler is None else self.scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def overflowed(self, gradients: WorkerGradients, world: World, like: Tensor) -> bool:
        """Whether a worker's scaled gradient, in any process, is not finite. `like`: of the parameters' device."""
        if self.scaler is None:
            return False
        found = (~gradients.finite()).any().to(like)[None]
        return bool(world.maximum(found)[0])
