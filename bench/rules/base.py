"""The interface of an upload rule, and the information that it may use."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gradients.engines import RowGradients, WorkerGradients
from bench.rules.past import Past


@dataclass
class View:
    """The information that a rule may use in round t.

    Attributes:
        round: t, from 0.
        num_workers: M, over all processes.
        learning_rate: the last γ above 0, converted to that of a sum over workers; None if there was none yet.
        lagged_rate: the same, one epoch late.
        stands: whether some entries are sent as 0 because their learning rate is 0.
        parameters: (d,) w^t.
        past: what the L workers of this process keep about their uploads.
        gradients: their gradients ∇f_m(w^t; ξ_m^t).
        gradients_at: computes gradients of the same batches at other parameters, one (d,) vector per row.
        num_backwards: (L,) backward passes so far in this round; a rule adds those that it requests.
        would_send: row -> ‖C(x)‖² and ‖x − C(x)‖² of the message that this worker would send now.
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
        """Compute gradients of these rows' batches at other parameters, and count their backward passes."""
        gradients = self.gradients_at(rows, parameters)
        self.num_backwards[rows] += gradients.num_backwards
        return gradients


class UploadRule(ABC):
    """Decides in every round which workers upload."""

    adaptive: bool = False
    """Whether a worker may skip; if so, each worker sends one bit per round that says whether it uploads."""

    drafts: bool = False
    """Whether the rule compresses every worker's message to decide (`View.would_send`), which must have no side
    effects. Those of uploaders are sent."""

    second_pass: bool = False
    """Whether deciding takes a second backward pass, of every worker that may skip."""

    def memory(self, num_rows: int, parameters: Tensor) -> dict[str, Tensor]:
        """Return the initial rows (L, …) that this rule keeps in `Past.memory`, by name."""
        return {}

    @abstractmethod
    def should_upload(self, view: View) -> Tensor:
        """Return (L,) bool: which workers of this process upload."""

    def finish_round(self, view: View, uploaded: Tensor) -> None:  # noqa: B027  most rules keep nothing
        """Update the rule's rows after the messages of the round's uploaders, (L,) bool, have been compressed."""


@dataclass(frozen=True)
class Always(UploadRule):
    """Every worker uploads in every round."""

    def should_upload(self, view: View) -> Tensor:
        return torch.ones(view.past.num_rows, dtype=torch.bool)
