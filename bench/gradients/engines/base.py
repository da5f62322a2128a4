"""The interface of engines: gradients of several workers, each from its own batch."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise

Step = Callable[[Any], Any]
"""A worker's batch -> what the module's `training_step` returned."""


def split_output(output: Any) -> tuple[Tensor, dict[str, Any]]:
    """Any `training_step` output that Lightning allows -> the loss (scalar), and everything else in the output.

    Raises:
        InputError: it is neither a tensor nor a Mapping with one under "loss".
    """
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise InputError(
            f"training_step: returned {type(output).__name__}; a loss tensor or a dict with 'loss' is needed"
        )
    return loss, {key: value for key, value in output.items() if key != "loss"} if loss is not output else {}


class UnsupportedModule(InputError):
    """This engine cannot run the module; the loop can."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"engine: {reason}, auto or loop is needed")


class RowGradients(ABC):
    """Gradients of R workers. Engines may keep them factored, or compute them when they are read.

    Attributes:
        num_backwards: backward passes that each worker takes for its gradient.
    """

    num_backwards: int = 1

    @abstractmethod
    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """(R', d): the gradients of these rows, written to `out` if given, otherwise to a new tensor."""


class WorkerGradients(RowGradients):
    """Gradients at the module's own parameters. Valid until the engine's next call of `gradients`.

    Attributes:
        losses: (R,) each worker's loss, detached.
        extras: what each worker's step returned besides its loss, detached.
    """

    losses: Tensor
    extras: Sequence[Mapping[str, Any]] = ()

    @abstractmethod
    def sum(self, rows: Tensor) -> Tensor:
        """(d,): the gradients of these rows, added one after another."""

    @abstractmethod
    def finite(self) -> Tensor:
        """(R,) bool: whether a worker's gradient is free of NaN and infinity."""

    def squared_distance(self, rows: Tensor, other: RowGradients) -> Tensor:
        """(R',): ‖g_m − g'_m‖² for these rows; `other` holds g' for them in this order."""
        distances = []
        for i, row in enumerate(rows.split(1)):
            (change,) = other.dense(torch.tensor([i])).sub_(self.dense(row))
            distances.append(change.dot(change))
        return torch.stack(distances)


@contextlib.contextmanager
def without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Clear the parameters' gradients inside, where a worker's are computed and read; restore them on exit."""
    before = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in zip(parameters, before, strict=True):
            p.grad = gradient


class Engine(ABC):
    """Computes the gradients of all workers in this process.

    Args:
        module: whose step is run.
        layout: of its parameters.
        buffers: its buffers, one row per worker.

    Attributes:
        unreached: slots of the parameters that got no gradient from autograd in some round so far.
    """

    tolerance: float = 0.0
    """The largest allowed distance of a worker's gradient from the loop's, relative to the norm of the loop's."""

    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        self.module = module
        self.layout = layout
        self.buffers = buffers
        self.unreached: set[int] = set()

    @abstractmethod
    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> WorkerGradients:
        """The gradient of every worker's loss. Updates the workers' buffers.

        Args:
            step: what a worker does with its batch.
            shards: the batches of L workers.
            noise: of L workers; seeds their dropout and the like.
            parameters: where to evaluate, one vector (d,) per row; at the module's own if None.
        """

    @abstractmethod
    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> RowGradients:
        """The gradients of R of the workers at past parameters, for the algorithm's own use: without side effects.

        Args:
            parameters: where to evaluate, one vector (d,) per row.
            rows: indices of these workers among the local ones.
            step: what a worker does with its batch.
            shards: the batches of these workers.
            noise: of these workers.
        """
