"""LAG, Lazily Aggregated Gradient: Chen, Giannakis, Sun, Yin, NeurIPS 2018."""

from dataclasses import dataclass

from torch import Tensor

from bench.rules.base import View
from bench.rules.lazy import LazyRule, squared_norm


@dataclass(frozen=True)
class LAGWK(LazyRule):
    """change = ‖ĝ_m − ∇f_m(w^t)‖² against the gradient of the last upload.

    With mini-batches the noise in both gradients does not vanish, so LAG hardly ever skips. Included to show this.
    """

    def memory(self, num_rows: int, parameters: Tensor) -> dict[str, Tensor]:
        return {"uploaded_gradient": parameters.new_zeros(num_rows, parameters.numel())}

    def change(self, view: View, rows: Tensor) -> Tensor:
        return squared_norm(view.gradients.dense(rows) - view.past.memory["uploaded_gradient"][rows])

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        rows = uploaded.nonzero()[:, 0]
        view.past.memory["uploaded_gradient"][rows] = view.gradients.dense(rows)
        super().finish_round(view, uploaded)
