"""What a worker does between its gradient and the compressor, and what it keeps for the next round.

Holds no state itself; works in place on the vectors that a worker keeps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import InputError
from bench.wire.message import Message


class Feedback(ABC):
    """compensate before compression, settle after it."""

    num_vectors: int = 0
    """How many vectors (d,) a worker keeps."""

    in_place: bool = False
    """Whether the vector to compress is built in the place of the first of them."""

    keeps_error: bool = False
    """Whether what a lossy compressor left out is in them."""

    @abstractmethod
    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        """What the compressor sees, (1, d).

        Args:
            update: (1, d) a worker's gradient, times γ where the recipe sends updates; may be overwritten.
            kept: (num_vectors, d) what the worker keeps.
        """

    def settle(self, kept: Tensor, sent: Message) -> None:  # noqa: B027  what keeps no error has nothing to do
        """Turn what is kept, after `compensate`, into what to keep for the next round, in place."""


@dataclass(frozen=True)
class NoFeedback(Feedback):
    """What is not sent is lost."""

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return update


@dataclass(frozen=True)
class ErrorFeedback(Feedback):
    """u = γg + e; send C(u); e ← u − C(u) (Stich, Cordonnier, Jaggi 2018, Algorithm 1)."""

    num_vectors = 1
    in_place = keeps_error = True

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return kept.add_(update)

    def settle(self, kept: Tensor, sent: Message) -> None:
        sent.subtract_from(kept)


@dataclass(frozen=True)
class MomentumCorrection(ErrorFeedback):
    """u ← βu + g; v ← v + u; send C(v); v ← v − C(v); u ← 0 where something was sent.

    Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018, sections 3.1 to 3.3. What waits to be sent gathers
    momentum as it would on the server; to send it ends its momentum (factor masking), so that where all is sent nothing
    has any. Goes with plain SGD on the server.

    Args:
        beta: β, in [0, 1). 0 is error feedback.
        max_norm: what ‖g‖ is clipped to, the whole model's; if None, nothing. The paper has a joint batch's over √M.
    """

    beta: float = 0.9
    max_norm: float | None = None
    num_vectors = 2

    def __post_init__(self) -> None:
        _require_beta(self.beta)
        if self.max_norm is not None and not self.max_norm > 0:
            raise InputError(f"max_norm: {self.max_norm}; a number above 0 is needed, or null")

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        v, u = kept.split(1)
        if self.max_norm is not None:
            length = torch.linalg.vector_norm(update, dtype=torch.float64)  # in which squares of floats are finite
            update.mul_((self.max_norm / length).clamp(max=1))
        return v.add_(u.mul_(self.beta).add_(update))

    def settle(self, kept: Tensor, sent: Message) -> None:
        v, u = kept.split(1)
        sent.subtract_from(v)
        sent.clear_in(u)


@dataclass(frozen=True)
class Differences(Feedback):
    """Send C(g − h); h ← h + αC(g − h), which the server does likewise, so that it knows Σ_m h_m and answers by
    Σ_m (h_m + C(g_m − h_m)). What is sent fades as gradients settle, however much workers differ.

    EF21, with α = 1 and a compressor that contracts: Richtárik, Sokolov, Fatkhullin, NeurIPS 2021. DIANA, with one that
    is right on average and α ≤ 1 / (1 + ω): Mishchenko, Gorbunov, Takáč, Richtárik 2019. LAQ's quantized innovations.

    Args:
        rate: α, in (0, 1].
    """

    rate: float = 1.0
    num_vectors = 1  # −h, from which a sparse message is subtracted where it has entries

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InputError(f"rate: {self.rate}; a number in (0, 1] is needed")

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return update.add_(kept)

    def settle(self, kept: Tensor, sent: Message) -> None:
        if self.rate == 1:
            sent.subtract_from(kept)
        else:
            kept.sub_(sent.dense(), alpha=self.rate)


@dataclass(frozen=True)
class Accumulate(Feedback):
    """a ← ρa + g; send C(a); a ← 0 where something was sent (Park, Lee: Sparse-SignSGD, arXiv 2302.07475).

    Args:
        decay: ρ, in [0, 1]. 1 accumulates until an entry is sent; 0 remembers nothing.
    """

    decay: float = 1.0
    num_vectors = 1
    in_place = keeps_error = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise InputError(f"decay: {self.decay}; a number in [0, 1] is needed")

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return (kept if self.decay == 1 else kept.mul_(self.decay)).add_(update)

    def settle(self, kept: Tensor, sent: Message) -> None:
        sent.clear_in(kept)


@dataclass(frozen=True)
class Momentum(Feedback):
    """v ← βv + (1 − β)g; send C(v) (Bernstein et al. 2018, Algorithm 2: Signum).

    Args:
        beta: β, in [0, 1). 0 has no momentum.
    """

    beta: float = 0.9
    num_vectors = 1
    in_place = True

    def __post_init__(self) -> None:
        _require_beta(self.beta)

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return kept.lerp_(update, 1 - self.beta)


def _require_beta(beta: float) -> None:
    if not 0 <= beta < 1:
        raise InputError(f"beta: {beta}; a number in [0, 1) is needed")
