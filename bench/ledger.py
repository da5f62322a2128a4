"""The account of a run. What one round cost comes in a `Report`; the `Ledger` adds them up."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from torch import Tensor


class Report(NamedTuple):
    """What each worker says of its round; every field has shape (L,), or (M,) once exchanged.

    `broken` marks a loss or message that is not finite: such a round ends the run, in every process at once.
    `fell_back`: the worker's process goes on with the loop, and so shall all. `learning_rate` is γ; where groups have
    rates of their own a mean, weighted to tell such apart. The last four are those of `Gauges`: NaN in a round that
    nobody gauges.
    """

    uploaded: np.ndarray
    num_bits: np.ndarray
    num_bits_paper: np.ndarray
    num_bytes: np.ndarray
    num_backwards: np.ndarray
    broken: np.ndarray
    fell_back: np.ndarray
    loss: np.ndarray
    learning_rate: np.ndarray
    gradient_square: np.ndarray
    input_square: np.ndarray
    error_square: np.ndarray
    bound: np.ndarray

    def pack(self) -> np.ndarray:
        """(L, 13) float64, in which integers are exact up to 2^53."""
        return np.stack(self, axis=1, dtype=np.float64, casting="unsafe")

    @classmethod
    def unpack(cls, table: np.ndarray) -> Self:
        """The inverse of `pack`."""
        flags, floats = ("uploaded", "broken", "fell_back"), cls._fields[-6:]
        kinds = [bool if name in flags else float if name in floats else int for name in cls._fields]
        return cls(*(column.astype(kind) for column, kind in zip(table.T, kinds, strict=True)))

    @classmethod
    def of_nothing(cls, losses: Tensor) -> Self:
        """Of a round that was not played. `losses`: (L,)."""
        none, unknown = np.zeros(len(losses)), np.full(len(losses), np.nan)
        table = {name: none if name in cls._fields[:-6] else unknown for name in cls._fields}
        return cls.unpack(np.stack([*(table | {"loss": losses.double().cpu().numpy()}).values()], axis=1))

    def agrees(self) -> bool:
        """Whether all workers have one learning rate."""
        rates = self.learning_rate
        return np.array_equal(rates, np.full_like(rates, rates[0]), equal_nan=True)

    @property
    def gradient_norm(self) -> float:
        """The mean length of the workers' gradients; NaN where it was not gauged."""
        return float(np.sqrt(self.gradient_square).mean())

    @property
    def compression_error(self) -> float:
        """Σ‖x − C(x)‖² / Σ‖x‖² over those who uploaded; NaN where nobody did, or where it was not gauged."""
        total = self.input_square[self.uploaded].sum()
        return float(self.error_square[self.uploaded].sum() / total) if total else float("nan")

    @property
    def bits_over_bound(self) -> float:
        """Bits on the wire over those that information theory asks for; NaN where nobody uploaded or gauged."""
        bound = self.bound[self.uploaded].sum()
        return float(self.num_bits[self.uploaded].sum() / bound) if bound else float("nan")


@dataclass
class Ledger:
    """Totals since the first round, over all M workers.

    Attributes:
        rounds: server updates.
        uploads: workers sending once.
        skips: of each worker, rounds in which it sent nothing.
        uplink_bits: what crossed from workers: values, positions, lengths.
        uplink_bits_paper: the same as the method's own paper counts it.
        downlink_bits: the server's broadcasts, counted once a round however many listen.
        control_bits: a worker's one-bit word a round on whether it uploads, where it may skip.
        num_backwards: backward passes; lazy rules take more than one a worker and round.
        modelled_s: seconds on the modelled link.
        measured_s: seconds that messages took on a real link; 0 in a simulation.
        downlink: the code of the broadcasts: "dense", "sign" (one bit an entry), "ternary" and so on.
    """

    rounds: int = 0
    uploads: int = 0
    skips: list[int] = field(default_factory=list)
    uplink_bits: int = 0
    uplink_bits_paper: int = 0
    downlink_bits: int = 0
    control_bits: int = 0
    num_backwards: int = 0
    modelled_s: float = 0.0
    measured_s: float = 0.0
    downlink: str = ""

    def record(
        self,
        report: Report,
        downlink: str,
        downlink_bits: int,
        control_bits: int,
        modelled_s: float,
        measured_s: float,
    ) -> None:
        """Add one round."""
        self.downlink = downlink
        self.rounds += 1
        so_far = self.skips or [0] * len(report.uploaded)
        self.skips = [n + (not sent) for n, sent in zip(so_far, report.uploaded.tolist(), strict=True)]
        self.charge(report, downlink_bits, control_bits, modelled_s, measured_s)

    def charge(
        self, report: Report, downlink_bits: int, control_bits: int, modelled_s: float, measured_s: float
    ) -> None:
        """Add what one exchange cost, of a round or outside of any."""
        self.uploads += int(report.uploaded.sum())
        self.uplink_bits += int(report.num_bits.sum())
        self.uplink_bits_paper += int(report.num_bits_paper.sum())
        self.downlink_bits += downlink_bits
        self.control_bits += control_bits
        self.num_backwards += int(report.num_backwards.sum())
        self.modelled_s += modelled_s
        self.measured_s += measured_s

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict) -> None:
        self.__dict__.update(state)
