"""Linear models with a ridge penalty: logistic regression in base 2, the support vector machine, and their optima.

f(w) = (1/N) Σ_n loss(b_n a_nᵀw) + λ₂‖w‖²,    loss(z) = log₂(1 + e^−z)  or  max(0, 1 − z),    b_n = ±1.
"""

from abc import ABC, abstractmethod
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn

from bench.errors import InputError

PRECISION = 1e-10  # largest gap between the value returned and the optimum
POLISH = 30  # most refinement steps after the general-purpose solver, which ends close to the optimum


def linear(num_features: int) -> nn.Sequential:
    """(B, d) features -> (B,) scores aᵀw, from w = 0."""
    layer = nn.Linear(num_features, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(layer, nn.Flatten(0))


class Loss(ABC):
    @abstractmethod
    def __call__(self, margins: Tensor) -> Tensor:
        """(B,) margins b aᵀw -> (B,) losses."""

    @abstractmethod
    def lowest(self, signed: np.ndarray, ridge: float) -> float:
        """The minimum of f, up to 1e-10: the value returned is at most so much above it.

        Args:
            signed: (N, d) float64, b_n a_n.
            ridge: λ₂, above 0.

        Raises:
            InputError: the optimum was not found to that precision.
        """


class Logistic(Loss):
    """log₂(1 + e^−z), as in the GSpar paper; it is 1 at w = 0."""

    def __call__(self, margins: Tensor) -> Tensor:
        return F.softplus(-margins) / log(2)

    def lowest(self, signed: np.ndarray, ridge: float) -> float:
        features = torch.from_numpy(signed)

        def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
            margins = features @ torch.from_numpy(w)
            slopes = -torch.sigmoid(-margins) / (log(2) * len(features))
            return float(self(margins).mean().item() + ridge * w @ w), (slopes @ features).numpy() + 2 * ridge * w

        # f is 2λ₂-strongly convex, so it is at most ‖∇f‖² / 4λ₂ above its minimum.
        enough = np.sqrt(4 * ridge * PRECISION)
        options = {"maxiter": 100_000, "maxfun": 200_000, "ftol": 0.0, "gtol": enough / signed.shape[1]}
        found = minimize(objective, np.zeros(signed.shape[1]), jac=True, method="L-BFGS-B", options=options)
        if not np.linalg.norm(found.jac) <= enough:
            raise InputError(f"ridge: {ridge}; no optimum to {PRECISION:g} was found, a larger one is needed")
        return float(found.fun)


class Hinge(Loss):
    """max(0, 1 − z)."""

    def __call__(self, margins: Tensor) -> Tensor:
        return F.relu(1 - margins)

    def lowest(self, signed: np.ndarray, ridge: float) -> float:
        """By the dual problem: maximise mean(α) − λ₂‖w(α)‖² over α in [0, 1]^N, w(α) = Σ α_n b_n a_n / (2λ₂N)."""
        num_samples = len(signed)

        def weights(alpha: np.ndarray) -> np.ndarray:
            return alpha @ signed / (2 * ridge * num_samples)

        def dual(alpha: np.ndarray) -> tuple[float, np.ndarray]:
            w = weights(alpha)
            return ridge * w @ w - alpha.mean(), (signed @ w - 1) / num_samples

        def primal(w: np.ndarray) -> float:
            return np.maximum(0, 1 - signed @ w).mean() + ridge * w @ w

        options = {"maxiter": 100_000, "maxfun": 200_000, "ftol": 0.0, "gtol": 1e-14}
        found = minimize(
            dual, np.ones(num_samples), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * num_samples, options=options
        )
        alpha = found.x
        for _ in range(POLISH):
            value, (bound, _) = primal(weights(alpha)), dual(alpha)
            if value + bound <= PRECISION:
                return float(value)
            free = (alpha > 1e-7) & (alpha < 1 - 1e-7)  # these samples lie on the margin: solve a linear system
            rest = weights(np.where(free, 0, alpha))
            gram = signed[free] @ signed[free].T / (2 * ridge * num_samples)
            alpha[free] = np.linalg.lstsq(gram, 1 - signed[free] @ rest)[0].clip(0, 1)
        raise InputError(f"ridge: {ridge}; no optimum to {PRECISION:g} was found, a larger one is needed")
