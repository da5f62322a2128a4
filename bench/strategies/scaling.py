"""Losses in half precision, scaled so that their gradients do not vanish."""

from typing import Any

from lightning.pytorch.plugins.precision import Precision
from torch import Tensor

from bench.collectives.world import World
from bench.gradients.engines import WorkerGradients


class Scaling:
    """How a Trainer's precision scales losses: "16-mixed" scales them, most others leave them unchanged.

    Args:
        precision: the Trainer's.
    """

    def __init__(self, precision: Precision) -> None:
        self.scaler: Any = getattr(precision, "scaler", None)

    @property
    def scale(self) -> float:
        """The factor that losses are multiplied by before gradients are computed."""
        return 1.0 if self.scaler is None else self.scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def overflowed(self, gradients: WorkerGradients, world: World, like: Tensor) -> bool:
        """Whether any worker's scaled gradient, in any process, is not finite. `like`: a tensor like the parameters."""
        if self.scaler is None:
            return False
        found = (~gradients.finite()).any().to(like)[None]
        return bool(world.maximum(found)[0])
