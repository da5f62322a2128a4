"""What a rule decides, and what it may look at."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gradients.engines import RowGradients, WorkerGradients
from bench.rules.past import Past


@dataclass
class View:
    """What a rule may look at in round t.

    Attributes:
        round: t, from 0.
        num_workers: M, in all processes.
        learning_rate: γ, of a sum over workers, the last one above 0; None where there was none yet.
        lagged_rate: the same an epoch late.
        stands: whether entries are sent as 0 because their learning rate is.
        parameters: (d,) w^t.
        past: what the L workers of this process remember of their uploads.
        gradients: their gradients ∇f_m(w^t; ξ_m^t).
        gradients_at: gradients of the same batches at other parameters, one (d,) vector a row.
        num_backwards: (L,) backward passes so far this round; a rule adds those it asks for.
        would_send: row -> ‖C(x)‖² and ‖x − C(x)‖² of what that worker would send now.
    """

    round: int
    num_workers: int
    learning_rate: float | None
    lagged_rate: float | None
    stands: bool
    parameters: Tensor
    past: Past
    gradients: WorkerGradients
    gradients_at: Callable[[Tensor, Sequence[Tensor]], RowGradients]
    num_backwards: Tensor
    would_send: Callable[[int], tuple[Tensor, Tensor]]

    def stale_gradients(self, rows: Tensor, parameters: Sequence[Tensor]) -> RowGradients:
        """Gradients of these rows' batches at other parameters, paid for in backward passes."""
        gradients = self.gradients_at(rows, parameters)
        self.num_backwards[rows] += gradients.num_backwards
        return gradients


class UploadRule(ABC):
    adaptive: bool = False
    """Whether a worker may skip; then each round costs one bit a worker to say so."""

    drafts: bool = False
    """Whether it goes by what a worker would send, which has to leave nothing behind."""

    def memory(self, num_rows: int, parameters: Tensor) -> dict[str, Tensor]:
        """The rows (L, …) this rule keeps in `Past.memory`, as they are before the first round."""
        return {}

    @abstractmethod
    def should_upload(self, view: View) -> Tensor:
        """(L,) bool."""

    def finish_round(self, view: View, uploaded: Tensor) -> None:  # noqa: B027  most rules keep nothing
        """Called after the uploads, (L,) bool, of the round have been compressed."""


@dataclass(frozen=True)
class Always(UploadRule):
    """Every worker, every round."""

    def should_upload(self, view: View) -> Tensor:
        return torch.ones(view.past.num_rows, dtype=torch.bool)
