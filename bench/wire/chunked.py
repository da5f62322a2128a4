"""Messages about the chunks of a vector, whose entries travel in the order of the chunks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from bench.wire.message import Message
from bench.wire.sparse import SparseMessage


@dataclass(frozen=True)
class ChunkedMessage(Message):
    """`inner`: the entries or coefficients of the chunks. `expanded`: (R, d) of these -> the vectors."""

    inner: SparseMessage
    expanded: Callable[[Tensor], Tensor]
    kind = "chunked"

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.inner.tensors

    @property
    def num_bits(self) -> Tensor:
        return self.inner.num_bits

    @property
    def bound(self) -> Tensor:
        return self.inner.bound

    def encode(self, row: int) -> np.ndarray:
        return self.inner.encode(row)

    def decode(self, payloads: Sequence[np.ndarray]) -> "ChunkedMessage":
        return replace(self, inner=self.inner.decode(payloads))

    def dense(self) -> Tensor:
        return self.expanded(self.inner.dense())

    def finite(self) -> Tensor:
        return self.inner.finite()

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        return replace(self, inner=self.inner.with_tensors(tensors))

    def mean_of_senders(self) -> Tensor:
        """(d,): of each coefficient the mean over the rows that have it, expanded."""
        senders = replace(self.inner, values=torch.ones_like(self.inner.values)).sum()
        return self.expanded((self.inner.sum() / senders.clamp(min=1))[None])[0]
