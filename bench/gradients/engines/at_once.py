"""Engines that run one step for all workers at once, under `torch.vmap`, and what such a step cannot do."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from bench.errors import InputError
from bench.gradients.engines.base import Engine, Step, UnsupportedModule, split_output
from bench.gradients.randomness import Drawing
from bench.gradients.traces import Notes, Traces, logging_replaced, without_traces
from bench.kernels.noise import Noise


class AtOnceEngine(Engine):
    """An engine whose workers have all their attributes in common, which a step changes once for all of them.

    Attributes:
        name: of the engine.
    """

    name: ClassVar[str]

    @contextlib.contextmanager
    def _first_pass(self, noise: Noise) -> Iterator[None]:
        """Inside, a step is run. What it changed is undone where it fails, and where this raises.

        Raises:
            UnsupportedModule: each worker needs something of its own: a gradient, as a parameter has hooks; a tensor
                that the step writes or keeps in an attribute; random numbers.
        """
        traces, drawing, before = Traces(self.buffers.attributes.reached), Drawing(), self.buffers.snapshot()
        try:
            self._refuse_apart()
            yield
            self._refuse_kept(traces, drawing)
        except BaseException:
            traces.undo()
            drawing.take_back()
            self.buffers.restore(before)
            raise
        self.buffers.attributes.settle_all(traces.before, noise)

    @contextlib.contextmanager
    def _other_pass(self, noise: Noise) -> Iterator[None]:
        """Inside, a step of this round is run once more, without side effects, from what the first pass started with.

        Raises:
            UnsupportedModule: as `_first_pass`.
        """
        attributes, drawing = self.buffers.attributes, Drawing()
        try:
            with attributes.as_then(noise, 0), without_traces(attributes.reached):
                yield
                self._refuse_draws(drawing)
        except BaseException:
            drawing.take_back()
            raise

    def _refuse_apart(self) -> None:
        if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in self.layout.parameters):
            raise UnsupportedModule(f"{self.name}; a parameter has hooks")
        if moved := [name for name in self.buffers.rows if not self.buffers.is_buffer(name)]:
            raise UnsupportedModule(f"{self.name}; training_step moves {moved[0]}, which is frozen")

    def _refuse_kept(self, traces: Traces, drawing: Drawing) -> None:
        self.buffers.refuse_registered()
        if written := self.buffers.written_elsewhere():
            raise UnsupportedModule(f"{self.name}; training_step writes {written[0]}")
        if traces.hold_tracers():
            raise UnsupportedModule(f"{self.name}; training_step keeps a tensor in an attribute")
        self._refuse_draws(drawing)

    def _refuse_draws(self, drawing: Drawing) -> None:
        if drawing.happened():
            raise UnsupportedModule(f"{self.name}; training_step draws from NumPy or random")


class _WideNorms(TorchFunctionMode):
    """Runs batch norm in single precision: under vmap it rejects half-precision inputs beside statistics in single."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm or args[0].dtype.itemsize != 2:
            return func(*args, **kwargs)
        return func(args[0].float(), *args[1:], **kwargs).to(args[0].dtype)


@contextlib.contextmanager
def vmapped(engine: str) -> Iterator[None]:
    """Run a step under vmap, and turn its errors into `UnsupportedModule`.

    Raises:
        UnsupportedModule: the step does something that vmap cannot, such as drawing random numbers.
    """
    with warnings.catch_warnings(), _WideNorms():
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
