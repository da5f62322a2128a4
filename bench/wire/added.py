"""Messages that were added up on their way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from torch import Tensor

from bench.wire.message import Message


@dataclass(frozen=True)
class AddedUp(Message):
    """R rows of which only the sum is known. `total`: the sum, one row. `count`: R."""

    total: Message
    count: int

    @property
    def num_rows(self) -> int:
        return self.count

    @property
    def num_bits(self) -> Tensor:
        return self.total.num_bits

    def sum(self, weights: Tensor | None = None) -> Tensor:
        assert weights is None, "weights: the rows are no longer there"
        return self.total.dense()[0]

    def encode(self, row: int) -> np.ndarray:
        return self.total.encode(row)

    def decode(self, payloads: Sequence[np.ndarray]) -> Message:
        return self.total.decode(payloads)

    def dense(self) -> NoReturn:
        raise NotImplementedError("dense: only the sum of the rows is known")
