"""How a worker combines its gradient with kept vectors before compression, and what it keeps for the next round.

A feedback is stateless: it updates the vectors that the worker keeps, in place.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import InputError
from bench.kernels.sums import accumulate
from bench.wire.message import Message


class Feedback(ABC):
    """`compensate` runs before compression, `settle` after it."""

    num_vectors: int = 0
    """How many vectors (d,) a worker keeps."""

    keeps_error: bool = False
    """Whether the kept vectors include what a lossy compressor left out."""

    @abstractmethod
    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        """Return the vector to compress, (1, d).

        Args:
            update: (1, d) a worker's gradient, times γ if the recipe sends updates; may be overwritten.
            kept: (num_vectors, d) the worker's kept vectors.
        """

    def settle(self, kept: Tensor, sent: Message) -> None:  # noqa: B027  without an error there is nothing to do
        """Update the kept vectors, as `compensate` left them, for the next round, in place."""


@dataclass(frozen=True)
class NoFeedback(Feedback):
    """Compresses the gradient itself; what is not sent is lost."""

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return update


@dataclass(frozen=True)
class ErrorFeedback(Feedback):
    """u = γg + e; send C(u); e ← u − C(u) (Stich, Cordonnier, Jaggi 2018, Algorithm 1)."""

    num_vectors = 1
    keeps_error = True

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return kept.add_(update)

    def settle(self, kept: Tensor, sent: Message) -> None:
        sent.subtract_from(kept)


@dataclass(frozen=True)
class DecayingError(ErrorFeedback):
    """e ← βe + g; send C(e); e ← e − C(e).

    Sarfi et al.: SparseLoCo, 2025. With a compressor of few components it is DeMo's decoupled momentum, of which the
    fast ones are sent: Peng, Quesnelle, Kingma 2024, Algorithm 1.

    Args:
        beta: β, in [0, 1]. 1 is error feedback.
    """

    beta: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise InputError(f"beta: {self.beta}; a number in [0, 1] is needed")

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return kept.mul_(self.beta).add_(update)


@dataclass(frozen=True)
class MomentumCorrection(ErrorFeedback):
    """u ← βu + g; v ← v + u; send C(v); v ← v − C(v); u ← 0 where something was sent.

    Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018, sections 3.1 to 3.3. Entries that wait to be sent
    accumulate momentum as they would on the server. Sending an entry clears its momentum (factor masking), so there is
    no momentum if every entry is sent. Use with SGD without momentum on the server.

    Args:
        beta: β, in [0, 1). 0 is error feedback.
        max_norm: the value to which ‖g‖, over the whole model, is clipped; None does not clip. The paper takes the
            threshold for the joint batch, divided by √M.
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
            length = torch.linalg.vector_norm(update, dtype=torch.float64)  # squares of float32 stay finite
            update.mul_((self.max_norm / length).clamp(max=1))
        return accumulate(v, u, update, self.beta)

    def settle(self, kept: Tensor, sent: Message) -> None:
        v, u = kept.split(1)
        sent.subtract_and_clear(v, u)


@dataclass(frozen=True)
class NesterovCorrection(ErrorFeedback):
    """m ← βm + g; u = g + βm + e; send C(u); e ← u − C(u).

    Zheng, Huang, Kwok: Communication-Efficient Distributed Blockwise Momentum SGD with Error-Feedback, NeurIPS 2019,
    Algorithm 3. There the error is multiplied by γ_{t−1}/γ_t; where workers send updates γg, it already is, and the
    momentum is one of updates, each with the γ of its round. Use with SGD without momentum on the server.

    Args:
        beta: β, in [0, 1). 0 is error feedback.
    """

    beta: float = 0.9
    num_vectors = 2

    def __post_init__(self) -> None:
        _require_beta(self.beta)

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        e, m = kept.split(1)
        m.mul_(self.beta).add_(update)
        return e.add_(update).add_(m, alpha=self.beta)

    def settle(self, kept: Tensor, sent: Message) -> None:
        sent.subtract_from(kept[:1])


@dataclass(frozen=True)
class Differences(Feedback):
    """Send C(g − h); h ← h + αC(g − h).

    The server applies the same update, so it knows Σ_m h_m, and workers go on with Σ_m (h_m + C(g_m − h_m)). For α = 1
    that is the next Σ_m h_m, which workers know, too, from the news Σ_m C(g_m − h_m) alone: this is the server's answer
    if its code is lossless. The differences vanish as gradients converge, even if the workers' gradients differ.

    EF21 is the case α = 1 with a contractive compressor: Richtárik, Sokolov, Fatkhullin, NeurIPS 2021. DIANA is the
    case α ≤ 1 / (1 + ω) with an unbiased compressor: Mishchenko, Gorbunov, Takáč, Richtárik 2019. LAQ sends its
    quantized innovations in this way.

    Args:
        rate: α, in (0, 1].
    """

    rate: float = 1.0
    num_vectors = 1  # −h, so that a sparse message is subtracted only where it has entries

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
        decay: ρ, in [0, 1]. 1 accumulates each entry until it is sent; 0 keeps nothing.
    """

    decay: float = 1.0
    num_vectors = 1
    keeps_error = True

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
        beta: β, in [0, 1). 0 is no momentum.
    """

    beta: float = 0.9
    num_vectors = 1

    def __post_init__(self) -> None:
        _require_beta(self.beta)

    def compensate(self, update: Tensor, kept: Tensor) -> Tensor:
        return kept.lerp_(update, 1 - self.beta)


def _require_beta(beta: float) -> None:
    if not 0 <= beta < 1:
        raise InputError(f"beta: {beta}; a number in [0, 1) is needed")
