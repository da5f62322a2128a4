"""Learning rate schedules that torch lacks."""

from dataclasses import dataclass

from bench.errors import InputError


@dataclass(frozen=True)
class InverseTime:
    """1 / (1 + epoch / half_life), the decay used in analyses of convex stochastic methods. For `LambdaLR`.

    Args:
        half_life: epochs until half of the rate is left, above 0.
    """

    half_life: float

    def __post_init__(self) -> None:
        if not self.half_life > 0:
            raise InputError(f"half_life: {self.half_life}; above 0 is needed")

    def __call__(self, epoch: int) -> float:
        return 1 / (1 + epoch / self.half_life)
