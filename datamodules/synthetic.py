"""The synthetic data of the GSpar paper: dense Gaussian features, most of them shrunk, so that gradients are skewed.

Wangni, Wang, Liu, Zhang: Gradient Sparsification for Communication-Efficient Distributed Optimization, NeurIPS 2018.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.errors import InputError
from bench.suite.datamodules.sharding import ShardedData


class LabelledFeatures(Dataset):
    """Features float32 (N, d) and labels ±1 (N,). Indexing by a tensor of shape S gives (S, d) and (S)."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, device: torch.device) -> None:
        self.features = torch.from_numpy(features.astype(np.float32)).to(device)
        self.labels = torch.from_numpy(labels.astype(np.float32)).to(device)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        flat = indices.flatten().to(self.features.device)
        features = self.features.index_select(0, flat).unflatten(0, indices.shape)
        return features, self.labels.index_select(0, flat).view(indices.shape)


class Synthetic(ShardedData):
    """Features ā ∘ B: ā ~ N(0, I) for each sample, and magnitudes B ~ U[0, 1]^d shared by all samples, where
    magnitudes of at most `threshold` are multiplied by `factor`. Evaluated on the training samples.

    Args:
        num_samples: N.
        num_features: d.
        threshold: largest magnitude that is shrunk, in [0, 1].
        factor: multiplier of shrunk magnitudes, in [0, 1].
        problem_seed: of the data; `seed` is that of the split.
    """

    num_classes = 2

    def __init__(
        self,
        num_samples: int,
        num_features: int,
        threshold: float,
        factor: float,
        problem_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, given in (("num_samples", num_samples), ("num_features", num_features)):
            if given < 1:
                raise InputError(f"{name}: {given}; at least 1 is needed")
        if problem_seed < 0:
            raise InputError(f"problem_seed: {problem_seed}; at least 0 is needed")
        for name, given in (("threshold", threshold), ("factor", factor)):
            if not 0 <= given <= 1:
                raise InputError(f"{name}: {given}; a number in [0, 1] is needed")
        self.shape = num_samples, num_features
        self.threshold = threshold
        self.factor = factor
        self.problem_seed = problem_seed

    @abstractmethod
    def label(self, plain: np.ndarray, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Gaussians ā (N, d) and features ā ∘ B -> labels ±1 (N,)."""

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, d) and labels ±1 (N,); they depend on `problem_seed` only."""
        rng = np.random.default_rng(self.problem_seed)
        plain, magnitudes = rng.standard_normal(self.shape), rng.random(self.shape[1])
        features = plain * np.where(magnitudes <= self.threshold, self.factor * magnitudes, magnitudes)
        return features, self.label(plain, features, rng)

    def setup(self, stage: str) -> None:
        features, labels = self.draw()
        everything = LabelledFeatures(features, labels, self.strategy.root_device)
        self.deal(everything, everything, labels > 0, labels > 0)


class LogisticData(Synthetic):
    """Labels sign(āᵀw̄), w̄ ~ N(0, I), for the convex experiment."""

    def label(self, plain: np.ndarray, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.where(plain @ rng.standard_normal(self.shape[1]) >= 0, 1, -1)


class SVMData(Synthetic):
    """Labels sign(xᵀw̄ + ν) of features x, w̄ ~ U[−½, ½]^d, ν ~ N(0, 1), for the asynchronous experiment."""

    def label(self, plain: np.ndarray, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        scores = features @ rng.uniform(-0.5, 0.5, self.shape[1]) + rng.standard_normal(self.shape[0])
        return np.where(scores >= 0, 1, -1)
