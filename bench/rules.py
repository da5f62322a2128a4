"""Who uploads: always, or lazily.

A lazy worker m skips its upload, and the server uses its last one again, as long as

    change_m ≤ (1/M²) Σ_{i=1}^{D−1} c ‖w^{t+1−i} − w^{t−i}‖²    and    age_m ≤ D,    c = coefficient / γ.

The first D rounds always upload. The left side is what the rules differ in; LAQ has another frame, too. The learning
rate γ of the threshold follows a schedule one epoch late, as in the SASG experiments, or at once; it is that of a sum:
a mean's γ counts a Mth.

LAG: Chen, Giannakis, Sun, Yin: LAG: Lazily Aggregated Gradient, NeurIPS 2018.
LASG: Chen, Sun, Yin: Communication-Adaptive Stochastic Gradient Methods, IEEE TSP 2021.
LAQ: Sun, Chen, Giannakis, Yang: Lazily Aggregated Quantized Gradients, NeurIPS 2019.
SASG's settings: Deng, Li, Sun, Lu: Sparse and Adaptive Stochastic Gradient, arXiv 2112.04088.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.engines import RowGradients, WorkerGradients
from bench.errors import InputError
from bench.worker import Workers


@dataclass
class LaggedRate:
    """The learning rate as thresholds see it: within an epoch, the last one of the epoch before."""

    epoch: int = 0
    latest: float | None = None
    lagged: float | None = None

    def follow(self, learning_rate: float, epoch: int) -> tuple[float | None, float | None]:
        """The rates for this round's thresholds, given the round's own: at once, and an epoch late.

        Each is the last one above 0, as a rate of 0 moves nothing; None where there was none yet. In the first epoch
        they are the same.
        """
        if epoch > self.epoch:
            self.epoch, self.lagged = epoch, self.latest
        if learning_rate > 0:
            self.latest = learning_rate
        return self.latest, self.latest if self.lagged is None else self.lagged


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
        workers: the rows of this process.
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
    workers: Workers
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
        """The rows (L, …) this rule keeps in `Workers.memory`, as they are before the first round."""
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
        return torch.ones(len(view.workers.ranks), dtype=torch.bool)


@dataclass(frozen=True)
class LazyRule(UploadRule):
    """The frame of the lazy rules.

    Args:
        coefficient: c times γ. 0.5 makes SASG's c = 1/(2γ) for MNIST; −inf never skips, inf skips all it may.
        max_age: D, the most rounds that one upload is used again.
        lagging: the threshold's γ follows its schedule an epoch late, as in SASG's experiments, or at once.
    """

    coefficient: float = 0.5
    max_age: int = 10
    lagging: bool = True
    adaptive = True

    def __post_init__(self) -> None:
        if self.max_age < 1:
            raise InputError(f"max_age: {self.max_age}; at least 1 round is needed")

    @abstractmethod
    def change(self, view: View, rows: Tensor) -> Tensor:
        """(R,): the left side of the rule for these rows."""

    @property
    def num_movements(self) -> int:
        """How many of the last movements the threshold adds up."""
        return self.max_age - 1

    @property
    def num_forced(self) -> int:
        """How many rounds at the beginning everybody uploads in."""
        return self.max_age

    def weight(self, learning_rate: float) -> float:
        """c, of a movement's squared length."""
        return self.coefficient / learning_rate

    def threshold(self, view: View) -> float:
        """The right side of the rule, a squared length of gradients, the same for every worker."""
        rate = view.lagged_rate if self.lagging else view.learning_rate
        assert rate is not None  # or everybody uploads
        c = self.weight(rate)
        # An infinite coefficient means the limit, even while nothing has moved.
        return sum(view.workers.movements) * c / view.num_workers**2 if abs(c) != torch.inf else c

    def should_upload(self, view: View) -> Tensor:
        workers = view.workers
        workers.remember(view.parameters, view.round, self.num_movements)
        ages = view.round - workers.upload_rounds
        is_forced = view.round < self.num_forced or view.learning_rate is None
        upload = (ages > self.max_age) | torch.tensor(is_forced)
        if not view.stands:
            upload |= workers.sent_nothing  # which would be used again, as nothing has moved since
        if len(undecided := (~upload).nonzero()[:, 0]):
            change = self.change(view, undecided).cpu()
            upload[undecided] = ~(change <= self.threshold(view))  # so that a NaN uploads, and is found
        return upload

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        view.workers.finish_round(uploaded, view.round, view.stands)


@dataclass(frozen=True)
class LAGWK(LazyRule):
    """change = ‖ĝ_m − ∇f_m(w^t)‖² against the gradient of the last upload.

    With mini-batches the noise in both gradients does not fade, so it hardly ever skips: kept to show why.
    """

    def memory(self, num_rows: int, parameters: Tensor) -> dict[str, Tensor]:
        return {"uploaded_gradient": parameters.new_zeros(num_rows, parameters.numel())}

    def change(self, view: View, rows: Tensor) -> Tensor:
        return _squared_norm(view.gradients.dense(rows) - view.workers.memory["uploaded_gradient"][rows])

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        rows = uploaded.nonzero()[:, 0]
        view.workers.memory["uploaded_gradient"][rows] = view.gradients.dense(rows)
        super().finish_round(view, uploaded)


@dataclass(frozen=True)
class LASGWK1(LazyRule):
    """change = ‖δ^t − δ^{last upload}‖², δ^t = ∇f_m(w^t; ξ^t) − ∇f_m(w̃; ξ^t), w̃ refreshed every D rounds."""

    def memory(self, num_rows: int, parameters: Tensor) -> dict[str, Tensor]:
        names = ("snapshot", "innovation", "uploaded_innovation")
        return {name: parameters.new_zeros(num_rows, parameters.numel()) for name in names}

    def should_upload(self, view: View) -> Tensor:
        # Every upload's δ is compared with later, so δ is computed in rounds that are forced to upload, too.
        memory, every_row = view.workers.memory, torch.arange(len(view.workers.ranks))
        if view.round % self.max_age == 0:
            memory["snapshot"] = view.parameters.clone().expand(len(every_row), -1)
        at_snapshot = view.stale_gradients(every_row, [memory["snapshot"][0]] * len(every_row))
        memory["innovation"] = view.gradients.dense(every_row) - at_snapshot.dense(every_row)
        return super().should_upload(view)

    def change(self, view: View, rows: Tensor) -> Tensor:
        memory = view.workers.memory
        return _squared_norm(memory["innovation"][rows] - memory["uploaded_innovation"][rows])

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        memory = view.workers.memory
        memory["uploaded_innovation"][uploaded] = memory["innovation"][uploaded]
        super().finish_round(view, uploaded)


@dataclass(frozen=True)
class LASGWK2(LazyRule):
    """change = ‖∇f_m(w^t; ξ^t) − ∇f_m(w^{t−τ_m}; ξ^t)‖²: the same batch at the parameters of the last upload.

    What SASG calls LASG. A second backward pass for every worker that is free to skip.
    """

    def change(self, view: View, rows: Tensor) -> Tensor:
        stale = view.stale_gradients(rows, view.workers.stale(rows))
        return view.gradients.squared_distance(rows, stale)


@dataclass(frozen=True)
class LASGPS(LazyRule):
    """change = L_m² ‖w^t − w^{t−τ_m}‖², decided by the server without a second backward pass.

    Args:
        smoothness: L_m, how fast the gradients of every worker change with the parameters.
    """

    smoothness: float = 1.0

    def change(self, view: View, rows: Tensor) -> Tensor:
        moved = [torch.dist(view.parameters, stale).square() for stale in view.workers.stale(rows)]
        return torch.stack(moved) * self.smoothness**2


@dataclass(frozen=True)
class LAQ(LazyRule):
    """change = ‖C(x_m)‖² − 3 (‖ε_m^t‖² + ‖ε_m^{last upload}‖²), ε = x − C(x), of the difference x that would be sent.

    c = coefficient / γ² (equation 7; ξ = 0.8 / 10 in the authors' code). Only the first round always uploads. Of
    differences sent as they are it is LAG's rule.

    Args:
        coefficient: ξ.
        max_age: the most rounds that one upload is used again; 100 in the authors' code.
        memory_length: D, over how many movements the threshold goes.
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
        memory = view.workers.memory  # the error of every upload is compared with later, also of those that are forced
        for row in range(len(view.workers.ranks)):
            memory["length"][row], memory["error"][row] = view.would_send(row)
        return super().should_upload(view)

    def change(self, view: View, rows: Tensor) -> Tensor:
        memory = view.workers.memory
        return memory["length"][rows] - 3 * (memory["error"][rows] + memory["uploaded_error"][rows])

    def finish_round(self, view: View, uploaded: Tensor) -> None:
        memory = view.workers.memory
        memory["uploaded_error"][uploaded] = memory["error"][uploaded]
        super().finish_round(view, uploaded)


def _squared_norm(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1)
