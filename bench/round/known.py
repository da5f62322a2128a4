"""What all workers know from the answers so far."""

from typing import Any

from torch import Tensor

from bench.algorithm import Algorithm
from bench.collectives.collective import refuse_overflow
from bench.wire.floats import finite_rows
from bench.wire.message import Message


class Known:
    """The aggregate as all workers know it, where the server answers with the news to it alone (EF21).

    Args:
        algorithm: the recipe.
        like: a vector (d,) of the parameters' dtype and device.

    Attributes:
        estimate: (d,) the last aggregate; None where answers are complete.
    """

    def __init__(self, algorithm: Algorithm, like: Tensor) -> None:
        self.estimate = like.new_zeros(like.shape) if algorithm.answers_news else None

    def direction(self, answer: Message, round: int) -> Tensor:
        """The direction (d,) that an answer, one row, leads to.

        Args:
            answer: of the server, finite.
            round: for error messages.

        Raises:
            NonFiniteError: the aggregate overflows. In every process alike.
        """
        if self.estimate is None:
            return answer.dense()[0]
        self.estimate = self.estimate + answer.dense()[0]
        refuse_overflow(bool(finite_rows(self.estimate[None])), [], round)
        return self.estimate.clone()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.estimate is not None:
            self.estimate = state["estimate"].to(self.estimate.device)
