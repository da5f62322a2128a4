"""The interface of engines: gradients of several workers, each from its own batch."""

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from bench.errors import InputError
from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.layout import Layout
from bench.gradients.traces import Notes, logging_replaced
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


class WideNorms(TorchFunctionMode):
    """Runs batch norm in single precision: under vmap it rejects half-precision inputs beside statistics in single."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm or args[0].dtype.itemsize != 2:
            return func(*args, **kwargs)
        return func(args[0].float(), *args[1:], **kwargs).to(args[0].dtype)


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


@contextlib.contextmanager
def vmapped(engine: str) -> Iterator[None]:
    """Run a step under vmap, and turn its errors into `UnsupportedModule`.

    Raises:
        UnsupportedModule: the step does something that vmap cannot, such as drawing random numbers.
    """
    with warnings.catch_warnings(), WideNorms():
        warnings.filterwarnings("ignore", ".*batching rule")  # an operation without one runs row by row, also correctly
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise UnsupportedModule(f"{engine}; {str(error).splitlines()[0]}") from error


class Stepping(nn.Module):
    """A step as a module's forward, so that the module's parameters and buffers can be replaced for one call."""

    def __init__(self, module: nn.Module, step: Step) -> None:
        super().__init__()
        self.module = module
        self.step = step

    def forward(self, shard: Any) -> Any:
        return self.step(shard)

    def at(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], shard: Any) -> Any:
        """Run the step with these tensors in place of the module's own, by name; return its loss, the new buffers, and
        the tensors that it logged or returned besides the loss."""
        moving = {name: values.clone() for name, values in buffers.items()}
        tensors = {f"module.{name}": values for name, values in {**parameters, **moving}.items()}
        with logging_replaced(self.module, notes := Notes()):
            output = functional_call(self, tensors, (shard,)) if tensors else self.step(shard)
        loss, extras = split_output(output)
        self.arguments = notes.arguments
        self.leaves, self.spec = tree_flatten((notes.values, extras))
        moved = {name: tensors[f"module.{name}"] for name in moving}  # including any that the step assigned anew
        return loss, (moved, [leaf.detach() for leaf in self.leaves if isinstance(leaf, Tensor)])

    def noted(self, tensors: Sequence[Tensor], num_workers: int) -> tuple[Notes, list[dict[str, Any]]]:
        """What workers logged, and what they returned besides their losses. `tensors`: (R, …), from `at`."""
        notes, extras = Notes(), []
        if not self.leaves:
            return notes, [{}] * num_workers
        for worker in range(num_workers):
            of_worker = (t[worker] for t in tensors)
            leaves = [next(of_worker) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
            logged, returned = tree_unflatten(leaves, self.spec)
            extras.append(returned)
            for name, values in logged.items():
                notes.values.setdefault(name, []).extend(values)
        notes.arguments = self.arguments
        return notes, extras


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

    def refuse_all_at_once(self, name: str) -> None:
        """Check that nothing has to be done for each worker separately.

        Raises:
            UnsupportedModule: a parameter has autograd hooks, which need one gradient per worker; or steps update a
                frozen parameter, of which each worker has its own copy.
        """
        if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in self.layout.parameters):
            raise UnsupportedModule(f"{name}; a parameter has hooks")
        if moved := [name for name in self.buffers.rows if not self.buffers.is_buffer(name)]:
            raise UnsupportedModule(f"{name}; training_step moves {moved[0]}, which is frozen")

    def refuse_written(self, name: str) -> None:
        """Check that a step of all workers at once wrote no tensor of which each worker should have its own copy.

        Raises:
            UnsupportedModule: it did.
        """
        if written := self.buffers.written_elsewhere():
            raise UnsupportedModule(f"{name}; training_step writes {written[0]}")

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
