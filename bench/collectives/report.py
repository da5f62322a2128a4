"""What workers tell each other about a round besides their messages."""

from typing import NamedTuple, Self

import numpy as np
from torch import Tensor

from bench.errors import InputError, NonFiniteError

END, SAVE = 1, 2
"""What a process asks of all: to end the fit, as it was told to end; to save a checkpoint, as it is time."""


class Report(NamedTuple):
    """Each worker's report of its round; every field has shape (L,), or (M,) once exchanged.

    `broken` marks a loss or message that is not finite: such a round ends the run, in every process at once.
    `damaged`: the process received bytes that are no message, so all end. `fell_back`: it has switched its engine to
    the loop, so all must. `asks`: what it asks of all after this round, `END` or `SAVE` or both. `learning_rate` is γ;
    where parameter groups differ, a mean weighted so that different rates give different means. The last four are those
    of `Gauges`: NaN in a round that is not gauged.
    """

    uploaded: np.ndarray
    num_bits: np.ndarray
    num_bits_paper: np.ndarray
    num_bytes: np.ndarray
    num_backwards: np.ndarray
    broken: np.ndarray
    damaged: np.ndarray
    fell_back: np.ndarray
    asks: np.ndarray
    loss: np.ndarray
    learning_rate: np.ndarray
    gradient_square: np.ndarray
    input_square: np.ndarray
    error_square: np.ndarray
    bound: np.ndarray

    def pack(self) -> np.ndarray:
        """(L, 15) float64, which represents integers exactly up to 2^53."""
        return np.stack(self, axis=1, dtype=np.float64, casting="unsafe")

    @classmethod
    def unpack(cls, table: np.ndarray) -> Self:
        """The inverse of `pack`."""
        flags, floats = ("uploaded", "broken", "damaged", "fell_back"), cls._fields[-6:]
        kinds = [bool if name in flags else float if name in floats else int for name in cls._fields]
        return cls(*(column.astype(kind) for column, kind in zip(table.T, kinds, strict=True)))

    @classmethod
    def of_nothing(cls, losses: Tensor) -> Self:
        """The report of a round that did not run. `losses`: (L,)."""
        none, unknown = np.zeros(len(losses)), np.full(len(losses), np.nan)
        table = {name: none if name in cls._fields[:-6] else unknown for name in cls._fields}
        return cls.unpack(np.stack([*(table | {"loss": losses.double().cpu().numpy()}).values()], axis=1))

    def agrees(self) -> bool:
        """Whether all workers have the same learning rate."""
        rates = self.learning_rate
        return np.array_equal(rates, np.full_like(rates, rates[0]), equal_nan=True)

    def refuse(self, round: int) -> None:
        """Check that the round can go on.

        Args:
            round: for error messages.

        Raises:
            InputError: workers have different learning rates.
            NonFiniteError: a worker's loss, gradient or message is NaN or infinite.
        """
        if not self.agrees():
            first, *others = self.learning_rate
            rank = next(rank for rank, other in enumerate(others, start=1) if other != first)
            given = f"worker {rank} has {self.learning_rate[rank]:g}; worker 0 has {first:g}"
            raise InputError(f"round {round}: lr: {given}, all need the same")
        if self.broken.any():
            ranks = ", ".join(map(str, np.flatnonzero(self.broken)))
            losses = ", ".join(f"{loss:g}" for loss in self.loss[self.broken])
            raise NonFiniteError(f"round {round}: worker {ranks}: loss {losses}: loss or gradient is not finite")

    @property
    def gradient_norm(self) -> float:
        """The mean norm of the workers' gradients; NaN if not gauged."""
        return float(np.sqrt(self.gradient_square).mean())

    @property
    def compression_error(self) -> float:
        """Σ‖x − C(x)‖² / Σ‖x‖² over the uploaders; NaN if there are none, or if not gauged."""
        total = self.input_square[self.uploaded].sum()
        return float(self.error_square[self.uploaded].sum() / total) if total else float("nan")

    @property
    def bits_over_bound(self) -> float:
        """Bits on the wire relative to their information-theoretic bound; NaN if nobody uploaded, or if not gauged."""
        bound = self.bound[self.uploaded].sum()
        return float(self.num_bits[self.uploaded].sum() / bound) if bound else float("nan")
