"""What crossed the network: sums over rounds, from which the seconds of every network follow."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any, Self

import numpy as np


@dataclass
class Traffic:
    """Sums over the rounds of a run, and over its other exchanges, such as those of SVRG's anchors.

    Integers, but for the traffic of a typical round.

    Attributes:
        worker_bits, worker_messages: by worker, what it sent: uploads, and what it told others to agree with them.
        upload_rounds: rounds in which a worker uploaded.
        longest_upload_bits: the longest upload of each round.
        agreement_rounds: rounds in which workers agreed on something before they compressed.
        agreement_bits: what each told for that.
        flag_rounds: rounds in which each worker told whether it uploads, as it may skip.
        answers: the server's answers, one a round.
        answer_bits: of them.
    """

    worker_bits: list[float]
    worker_messages: list[float]
    upload_rounds: float = 0
    longest_upload_bits: float = 0
    agreement_rounds: float = 0
    agreement_bits: float = 0
    flag_rounds: float = 0
    answers: float = 0
    answer_bits: float = 0

    @classmethod
    def none(cls, num_workers: int) -> Self:
        """The traffic before the first round."""
        return cls([0] * num_workers, [0] * num_workers)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self | None:
        """The traffic of a history's row; None if the run was recorded without it."""
        found = {field.name: row.get(field.name) for field in fields(cls)}
        return None if None in found.values() else cls(**found)  # pyright: ignore[reportArgumentType]

    @property
    def num_workers(self) -> int:
        return len(self.worker_bits)

    def add(self, uploaded: np.ndarray, bits: np.ndarray, answer_bits: int, offer_bits: int, flags: bool) -> None:
        """Add one exchange.

        Args:
            uploaded: (M,) bool.
            bits: (M,) uploads; those of workers that do not upload are 0.
            answer_bits: the server's answer.
            offer_bits: what each uploader told before, to agree with the others; 0 if nothing.
            flags: whether workers told if they upload.
        """
        sent = bits + offer_bits * uploaded
        messages = uploaded * (2 if offer_bits else 1)
        self.worker_bits = (np.array(self.worker_bits) + sent).tolist()
        self.worker_messages = (np.array(self.worker_messages) + messages).tolist()
        if uploaded.any():
            self.upload_rounds += 1
            self.longest_upload_bits += int(bits.max())
            self.agreement_rounds += bool(offer_bits)
            self.agreement_bits += offer_bits
        self.flag_rounds += flags
        self.answers += 1
        self.answer_bits += answer_bits

    def __sub__(self, before: Self) -> Self:
        """What crossed since `before`."""
        pairs = zip(astuple(self), astuple(before), strict=True)
        return type(self)(*(np.subtract(now, then).tolist() for now, then in pairs))
