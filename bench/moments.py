"""Adam's moments, which all workers keep alike from the server's answers.

Tang, Gan, Awan, Rajbhandari, Li, Lian, Liu, Zhang, He: 1-bit Adam: Communication Efficient Large-Scale Training with
Adam's Convergence Speed, ICML 2021, Algorithm 1.
"""

from dataclasses import dataclass

import torch

from bench.errors import InputError


@dataclass(frozen=True)
class Moments:
    """Workers send the first moment, and step by it over the root of the second, which is learned in dense rounds only.

    Every worker sends m_m = β₁ m + (1 − β₁) g_m, where m is the server's last answer. All step by m̂ / (√v̂ + ε), m
    being the new answer. While messages are exact, v ← β₂ v + (1 − β₂) ḡ², and the step is Adam's; then v stays. The
    means of few rounds are corrected as Adam corrects them; the authors' code in DeepSpeed does not, and is the same
    otherwise. An entry without a gradient until then has no v and does not move: a sign over ε would be far too large
    a step. Use with SGD without momentum.

    Args:
        beta1: β₁, in [0, 1).
        beta2: β₂, in [0, 1).
        epsilon: ε, above 0 and finite.

    Raises:
        InputError: a value out of its range.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)}; a number in [0, 1) is needed")
        if not 0 < self.epsilon < float("inf"):
            raise InputError(f"epsilon: {self.epsilon}; a finite number above 0 is needed")

    @staticmethod
    def refuse(optimizer: torch.optim.Optimizer, where: str, name: str) -> None:
        """Check that nothing steps twice.

        Args:
            optimizer: that takes the step.
            where: it comes from, for the error message.
            name: of the recipe.

        Raises:
            InputError: it is another than SGD without momentum.
        """
        is_sgd = isinstance(optimizer, torch.optim.SGD)
        if not is_sgd or any(group["momentum"] for group in optimizer.param_groups):
            given = f"{type(optimizer).__name__}{' with momentum' * is_sgd}"
            raise InputError(
                f"{where}: {given}; {name} steps by Adam's moments of its own, SGD without momentum is needed"
            )
