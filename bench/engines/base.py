"""What an engine gives: the gradients of several workers, each from its own batch."""

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from bench.buffers import WorkerBuffers
from bench.engines.traces import logging_replaced
from bench.errors import InputError
from bench.layout import Layout
from bench.noise import Noise

Step = Callable[[Any], Tensor]
"""A worker's batch -> its loss (scalar): the module's `training_step`."""


class UnsupportedModule(InputError):
    """The engine cannot run the module; the loop can."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"engine: {reason}, auto or loop is needed")


def sum_in_order(rows: Sequence[Tensor]) -> Tensor:
    """(d,): the rows (d,) added up one after another; the order decides the last bits."""
    total = rows[0].clone()
    for row in rows[1:]:
        total.add_(row)
    return total


def wide(t: Tensor) -> Tensor:
    """Half precision is for products; what is added up, or needs more digits, is in single."""
    return t.float() if t.dtype.itemsize < 4 else t


def _refuse_to_log(*args: Any, **kwargs: Any) -> None:
    """Under vmap a logged value would be a tracer, so a step that logs is left to the loop."""
    raise UnsupportedModule("training_step logs")


class RowGradients(ABC):
    """Gradients of R workers. Engines may keep them factored, or compute them when they are read.

    Attributes:
        num_backwards: backward passes that each of these workers takes for them.
    """

    num_backwards: int = 1

    @abstractmethod
    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """(R', d): the gradients of these rows, written to `out` if given, else to a new tensor."""


class WorkerGradients(RowGradients):
    """Those of a round, at the module's own parameters. Good until the engine's next round.

    Attributes:
        losses: (R,) each worker's loss, detached.
    """

    losses: Tensor

    @abstractmethod
    def sum(self, rows: Tensor) -> Tensor:
        """(d,): the gradients of these rows added up one after another."""

    @abstractmethod
    def finite(self) -> Tensor:
        """(R,) bool: whether a worker's gradient is free of NaN and infinity."""

    @abstractmethod
    def squared_distance(self, rows: Tensor, other: RowGradients) -> Tensor:
        """(R',): ‖g_m − g'_m‖² for these rows, `other` (of the same engine) holding g' for them in this order."""


class WideNorms(TorchFunctionMode):
    """Batch norm in single precision: under vmap it refuses autocast's halves beside statistics in single."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm or args[0].dtype.itemsize != 2:
            return func(*args, **kwargs)
        return func(args[0].float(), *args[1:], **kwargs).to(args[0].dtype)


@contextlib.contextmanager
def vmapped(engine: str, module: nn.Module) -> Iterator[None]:
    """A step under vmap: it must not log, and what vmap cannot do is told as such.

    Raises:
        UnsupportedModule: the step does such a thing, draws random numbers for example.
    """
    with logging_replaced(module, _refuse_to_log), warnings.catch_warnings(), WideNorms():
        warnings.filterwarnings("ignore", ".*batching rule")  # what has none is run row by row, which is right, too
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UnsupportedModule(f"{engine}; {str(error).splitlines()[0]}") from error


class Stepping(nn.Module):
    """A step as a module's forward, so that the module's parameters and buffers can be exchanged for a call."""

    def __init__(self, module: nn.Module, step: Step) -> None:
        super().__init__()
        self.module = module
        self.step = step

    def forward(self, shard: Any) -> Tensor:
        return self.step(shard)

    def at(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], shard: Any) -> Any:
        """The step's loss with these in the place of the module's own, by name, and what it made of the buffers."""
        moving = {name: values.clone() for name, values in buffers.items()}
        tensors = {f"module.{name}": values for name, values in {**parameters, **moving}.items()}
        return (functional_call(self, tensors, (shard,)) if tensors else self.step(shard)), moving


class Engine(ABC):
    """Computes gradients of all workers in this process.

    Args:
        module: whose step is run.
        layout: its parameters.
        buffers: its buffers, a row a worker.
    """

    tolerance: float = 0.0
    """How far a worker's gradient may lie from the loop's, as a fraction of its length."""

    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        self.module = module
        self.layout = layout
        self.buffers = buffers

    @abstractmethod
    def gradients(
        self, step: Step, batch: Any, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> WorkerGradients:
        """The gradient of every worker's loss, whose buffers move on.

        Args:
            step: a worker's batch -> its loss.
            batch: a tree of tensors (L, B, …), a row a worker.
            noise: of L workers, what seeds their dropout and the like.
            parameters: where to evaluate, one (d,) vector a row; if None at the module's own.
        """

    @abstractmethod
    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, batch: Any, noise: Sequence[Noise]
    ) -> RowGradients:
        """The same for R of the workers at parameters of the past: an affair of the algorithm, without side effects.

        Args:
            parameters: where to evaluate, one (d,) vector a row.
            rows: which of the local workers the rows are.
            step: a worker's batch -> its loss.
            batch: (R, B, …), of these workers.
            noise: of these workers.
        """
