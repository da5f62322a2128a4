"""LAQ, Lazily Aggregated Quantized Gradients: Sun, Chen, Giannakis, Yang, NeurIPS 2019."""

from dataclasses import dataclass

from torch import Tensor

from bench.errors import InputError
from bench.rules.base import View
from bench.rules.lazy import LazyRule


@dataclass(frozen=True)
class LAQ(LazyRule):
    """change = ‖C(x_m)‖² − 3 (‖ε_m^t‖² + ‖ε_m^{last upload}‖²), ε = x − C(x), where x is the difference to send.

    c = coefficient / γ² (equation 7; ξ = 0.8 / 10 in the authors' code). Only in the first round must every worker
    upload. For uncompressed differences this is LAG's rule.

    Args:
        coefficient: ξ.
        max_age: the most rounds for which one upload is reused; 100 in the authors' code.
        memory_length: D, the number of movements in the threshold.
    """

    coefficient: float = 0.08
    max_age: int = 100
    lagging: bool = False
    memory_length: int = 10
    drafts = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_length < 1:
            raise InputError(f"memory_length: {self.memory_length}; at least 1 round is needed")

    @property
    def num_movements(self) -> int:
        return self.memory_length

    @property
    def num_forced(self) -> int:
        return 1

    def weight(self, learning_rate: float) -> float:
        return self.coefficient / learning_rate**2

    def memory(self, num_rows: int, parameters: Tensor) -> dict[str, Tensor]:
        return {name: parameters.new_zeros(num_rows) for name in ("length", "error", "uploaded_error")}

    def should_upload(self, view: View) -> Tensor:
        memory = view.past.memory  # later rounds compare with the error of every upload, even a forced one
        for row in range(view.past.num_rows):
            memory["length"][row], memory["error"][row] = view.would_send(row)
        return super().should_upload(view)

    def change(self, view: View, rows: Tensor) -> Tensor:
        memory = view.past.memory
        return memory["length"][rows] - 3 * (memory["error"][rows] + memory["uploaded_error"][rows])

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        memory = view.past.memory
        memory["uploaded_error"][uploaded] = memory["error"][uploaded]
        super().finish_round(view, uploaded)
