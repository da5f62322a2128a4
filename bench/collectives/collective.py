"""How messages become everyone's answer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.errors import NonFiniteError
from bench.wire.dense import DenseMessage
from bench.wire.message import Message


class Served(NamedTuple):
    """What a server returns for the messages of a round.

    Attributes:
        answer: one row.
        finite: whether the answer is free of NaN and infinity.
        broken: the ranks whose messages are not.
    """

    answer: Message
    finite: bool
    broken: list[int]


Serve = Callable[[np.ndarray, Message | None], Served]
"""Takes who uploaded, (M,) bool, and their messages in rank order; None if there are none."""


@dataclass(frozen=True)
class Exchange:
    """The result of one round's exchange.

    Attributes:
        report: of all M workers.
        answer: one row, the same in every process.
        transit: what it took.
    """

    report: Report
    answer: Message
    transit: Transit


class Schemas(Protocol):
    """Messages of one row that serve to decode others: they say what arrives, not with which content."""

    @property
    def uploads(self) -> Message:
        """A message such as workers send."""
        ...

    @property
    def answers(self) -> Message:
        """A message such as servers answer."""
        ...


class Dense:
    """The schemas of uncompressed messages and answers. `like`: (d,)."""

    def __init__(self, like: Tensor) -> None:
        self.uploads = self.answers = DenseMessage(like[None])


class Collective(ABC):
    """Carries messages to the servers and their answers back.

    Attributes:
        name: the name that a config gives it.
        slices: (start, end) of the entries that each process's server serves; one slice if every server serves all.
        bounds: the slice of this process.
    """

    name: str
    slices: Sequence[tuple[int, int]]
    bounds: tuple[int, int]

    @abstractmethod
    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        """Swap reports and messages with all other processes, and have them answered.

        Args:
            report: of the local workers.
            message: of the local uploaders; None if there are none.
            schemas: what messages and answers look like.
            serve: this process's server, over the entries in `bounds`.
            round: for error messages.

        Raises:
            InputError: workers have different learning rates. In every process alike.
            NonFiniteError: a worker's loss or message, or the answer, is NaN or infinite. In every process alike.
            WorkerLostError: another process did not answer in time.
        """


def refuse_overflow(finite: bool, broken: list[int], round: int) -> None:
    """Raise NonFiniteError where an answer is not finite, naming the workers whose messages are not."""
    if not finite:
        whose = f"the gradient of worker {', '.join(map(str, broken))}" if broken else "the workers' sum"
        raise NonFiniteError(f"round {round}: {whose} is not finite: an overflow")
