"""What all workers know from the answers so far."""

from typing import Any

import torch
from torch import Tensor

from bench.algorithm import Algorithm
from bench.collectives.collective import refuse_overflow
from bench.moments import Moments
from bench.wire.floats import finite_rows
from bench.wire.message import Message


class Known:
    """The aggregate as all workers know it, where the server answers with the news to it alone (EF21), and moments.

    Args:
        algorithm: the recipe.
        like: a vector (d,) of the parameters' dtype and device.

    Attributes:
        estimate: (d,) the last aggregate; None where answers are complete.
        moments: of the answers; None where the recipe has none.
    """

    def __init__(self, algorithm: Algorithm, like: Tensor) -> None:
        self.estimate = like.new_zeros(like.shape) if algorithm.answers_news else None
        self.moments = None if algorithm.moments is None else LearnedMoments(algorithm.moments, like)

    def lead(self, gradient: Tensor) -> Tensor:
        """What a worker would send of its gradient (1, d), which may be overwritten."""
        return gradient if self.moments is None else self.moments.lead(gradient)

    def direction(self, answer: Message, round: int, exact: bool) -> Tensor:
        """The direction (d,) that an answer, one row, leads to.

        Args:
            answer: of the server, finite.
            round: for error messages.
            exact: whether this round's messages and answer were lossless.

        Raises:
            NonFiniteError: the aggregate overflows. In every process alike.
        """
        if self.moments is not None:
            return self.moments.direction(answer.dense()[0], exact)
        if self.estimate is None:
            return answer.dense()[0]
        self.estimate = self.estimate + answer.dense()[0]
        refuse_overflow(bool(finite_rows(self.estimate[None])), [], round)
        return self.estimate.clone()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; the estimate only where there is one."""
        estimate = {} if self.estimate is None else {"estimate": self.estimate}
        return estimate if self.moments is None else {**estimate, "moments": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.estimate is not None:
            self.estimate = state["estimate"].to(self.estimate.device)
        if self.moments is not None:
            self.moments.load_state_dict(state["moments"])


class LearnedMoments:
    """The state of `Moments`, of at least float32: in halves v would stand still, as 1 − β₂ of it is lost to rounding.

    Args:
        options: the recipe's.
        like: a vector (d,) of the parameters' dtype and device.

    Attributes:
        first, second: (d,) m and v.
        num_rounds, num_exact: how many rounds there were, and how many of them were exact.
    """

    def __init__(self, options: Moments, like: Tensor) -> None:
        self.options = options
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.first, self.second = (like.new_zeros(like.shape, dtype=dtype) for _ in range(2))
        self.num_rounds = self.num_exact = 0

    def lead(self, gradient: Tensor) -> Tensor:
        beta = self.options.beta1
        return gradient.mul_(1 - beta).add_(self.first, alpha=beta)  # in the gradient's dtype, that of messages

    def direction(self, answer: Tensor, exact: bool) -> Tensor:
        options, last = self.options, self.first
        self.first = answer.to(last.dtype, copy=True)
        self.num_rounds += 1
        if exact:
            mean = (self.first - options.beta1 * last).div_(1 - options.beta1)  # ḡ
            self.second.mul_(options.beta2).addcmul_(mean, mean, value=1 - options.beta2)
            self.num_exact += 1
        first = self.first / (1 - options.beta1**self.num_rounds)
        second = self.second / (1 - options.beta2**self.num_exact)
        step = first.div_(second.sqrt().add_(options.epsilon)).masked_fill_(second == 0, 0)
        return step.to(answer.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("first", "second", "num_rounds", "num_exact")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first, self.second = state["first"].to(self.first), state["second"].to(self.first)
        self.num_rounds, self.num_exact = state["num_rounds"], state["num_exact"]
