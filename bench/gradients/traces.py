"""Side effects of a step besides its loss: what it logs, and what it leaves in a module's attributes."""

import contextlib
import inspect
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]

from bench.gradients.cells import Cell
from bench.gradients.reached import Reached

_POSITION = list(inspect.signature(lightning.LightningModule.log).parameters).index("reduce_fx") - 3
_REDUCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("mean", "avg", torch.mean), torch.mean),
    **dict.fromkeys(("sum", torch.sum, sum), torch.sum),
    **dict.fromkeys(("max", torch.max, max), torch.max),
    **dict.fromkeys(("min", torch.min, min), torch.min),
}


class Notes:
    """Collects what workers log one after another, to log it once."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Stands in for `LightningModule.log`."""
        kept = value.detach().clone() if isinstance(value, Tensor) else value  # the next step may write a buffer
        self.values.setdefault(name, []).append(kept)
        self.arguments[name] = args, kwargs

    def emit(self, module: nn.Module) -> None:
        """Log every name once: numbers reduced over the workers by `reduce_fx`, of other values the last."""
        for name, values in self.values.items():
            args, kwargs = self.arguments[name]
            log: Any = module.log
            log(name, _reduced(values, kwargs.get("reduce_fx", args[_POSITION] if len(args) > _POSITION else "mean")),
                *args, **kwargs)  # fmt: skip


def _reduced(values: Sequence[Any], reduction: Any) -> Any:
    if len(values) == 1 or not all(isinstance(value, Number | Tensor) for value in values):
        return values[-1]
    reduce = _REDUCTIONS.get(reduction.lower() if isinstance(reduction, str) else reduction)
    if reduce is None:  # Lightning rejects it itself
        return values[-1]
    if reduce is torch.mean:
        return sum(values) / len(values)
    return reduce(torch.stack([torch.as_tensor(value) for value in values]))


@contextlib.contextmanager
def logging_replaced(module: nn.Module, notes: Any) -> Iterator[None]:
    """Replace `module.log`, which `log_dict` calls, by that of `notes`; restore it on exit."""
    own = vars(module)
    before = {"log": own["log"]} if "log" in own else {}
    own["log"] = notes.log
    try:
        yield
    finally:
        del own["log"]
        own.update(before)


@contextlib.contextmanager
def logging_once(module: nn.Module) -> Iterator[None]:
    """Log what workers log inside once, on exit."""
    with logging_replaced(module, notes := Notes()):
        yield
    notes.emit(module)


class Traces:
    """What a module's attributes held, to detect and undo what a step changes there.

    Containers are restored in place, as other code may hold references to them.

    Args:
        reached: the module's, found in this round.
    """

    def __init__(self, reached: Reached) -> None:
        self.before: dict[Cell, Any] = {cell: cell.now() for cell in reached.cells.values()}

    def undo(self) -> None:
        """Restore all of it."""
        for cell, value in self.before.items():
            cell.put(value)

    def hold_tracers(self) -> bool:
        """Whether anything stored since is a tensor of vmap's or of `torch.func.grad`'s, which is unusable outside."""
        return any(_holds_tracers(now) for cell, before in self.before.items() if (now := cell.now()) is not before)


def _holds_tracers(value: Any) -> bool:
    if isinstance(value, Tensor):
        return is_functorch_wrapped_tensor(value)
    if isinstance(value, dict):
        return any(map(_holds_tracers, value.values()))
    return isinstance(value, list | tuple | set | deque) and any(map(_holds_tracers, value))


@contextlib.contextmanager
def without_traces(reached: Reached) -> Iterator[None]:
    """Undo on exit what a step changes in a module's attributes."""
    reached.find()
    traces = Traces(reached)
    try:
        yield
    finally:
        traces.undo()


def merged(by_worker: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine what workers' steps returned besides their losses into what one step would return.

    With several workers, tensors of matching shapes are concatenated in rank order, 0-dim ones stacked; other values
    become a list.
    """
    if len(by_worker) == 1:
        return dict(by_worker[0])
    together = {}
    for name in dict.fromkeys(name for extras in by_worker for name in extras):
        values = [extras[name] for extras in by_worker if name in extras]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if len(tensors) < len(values) or len({t.shape[1:] for t in tensors}) > 1 or len({t.ndim for t in tensors}) > 1:
            together[name] = values
        else:
            together[name] = torch.cat(tensors) if tensors[0].ndim else torch.stack(tensors)
    return together
