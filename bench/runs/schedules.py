"""Learning rates over time, where torch has none."""

from dataclasses import dataclass

from bench.errors import InputError


@dataclass(frozen=True)
class InverseTime:
    """1 / (1 + epoch / half_life), the decay that convex stochastic methods are analysed with. For `LambdaLR`.

    Args:
        half_life: epochs until half is left, above 0.
    """

    half_life: float

    def __post_init__(self) -> None:
        if not self.half_life > 0:
            raise InputError(f"half_life: {self.half_life}; above 0 is needed")

    def __call__(self, epoch: int) -> float:
        return 1 / (1 + epoch / self.half_life)
