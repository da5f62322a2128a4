"""LASG, stochastic variants of LAG.

Chen, Sun, Yin: Communication-Adaptive Stochastic Gradient Methods, IEEE TSP 2021.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import InputError
from bench.rules.base import View
from bench.rules.lazy import LazyRule, squared_norm


@dataclass(frozen=True)
class LASGWK1(LazyRule):
    """change = ‖δ^t − δ^{last upload}‖², δ^t = ∇f_m(w^t; ξ^t) − ∇f_m(w̃; ξ^t), w̃ refreshed every D rounds."""

    second_pass = True

    def memory(self, num_rows: int, parameters: Tensor) -> dict[str, Tensor]:
        names = ("snapshot", "innovation", "uploaded_innovation")
        return {name: parameters.new_zeros(num_rows, parameters.numel()) for name in names}

    def should_upload(self, view: View) -> Tensor:
        # Later rounds compare with the δ of every upload, so δ is computed in rounds with forced uploads, too.
        memory, every_row = view.past.memory, torch.arange(view.past.num_rows)
        if view.round % self.max_age == 0:
            memory["snapshot"] = view.parameters.clone().expand(len(every_row), -1)
        at_snapshot = view.stale_gradients(every_row, [memory["snapshot"][0]] * len(every_row))
        memory["innovation"] = view.gradients.dense(every_row) - at_snapshot.dense(every_row)
        return super().should_upload(view)

    def change(self, view: View, rows: Tensor) -> Tensor:
        memory = view.past.memory
        return squared_norm(memory["innovation"][rows] - memory["uploaded_innovation"][rows])

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        memory = view.past.memory
        memory["uploaded_innovation"][uploaded] = memory["innovation"][uploaded]
        super().finish_round(view, uploaded)


@dataclass(frozen=True)
class LASGWK2(LazyRule):
    """change = ‖∇f_m(w^t; ξ^t) − ∇f_m(w^{t−τ_m}; ξ^t)‖²: the same batch at the parameters of the last upload.

    The SASG paper calls this LASG. It takes a second backward pass for every worker that may skip.
    """

    second_pass = True

    def change(self, view: View, rows: Tensor) -> Tensor:
        stale = view.stale_gradients(rows, view.past.stale(rows))
        return view.gradients.squared_distance(rows, stale)


@dataclass(frozen=True)
class LASGPS(LazyRule):
    """change = L_m² ‖w^t − w^{t−τ_m}‖², which the server can decide without a second backward pass.

    Args:
        smoothness: L_m, the Lipschitz constant of every worker's gradient.

    Raises:
        InputError: `smoothness` is not a finite number above 0.
    """

    smoothness: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.smoothness < float("inf"):
            raise InputError(f"smoothness: {self.smoothness}; a finite number above 0 is needed")

    def change(self, view: View, rows: Tensor) -> Tensor:
        moved = [torch.dist(view.parameters, stale).square() for stale in view.past.stale(rows)]
        return torch.stack(moved) * self.smoothness**2
