"""Side effects of a step besides its loss: logged values, changed attributes and containers, counts of metrics."""

import contextlib
import inspect
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from operator import eq, is_
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
from torchmetrics import Metric

CONTAINERS = (list, dict, set, deque)
NUM_LOOKED_INTO = 64
"""A container of more entries is copied, but its entries are not searched for further containers."""

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
        detached = value.detach() if isinstance(value, Tensor) else value  # a graph would keep a worker's activations
        self.values.setdefault(name, []).append(detached)
        self.arguments[name] = args, kwargs

    def log_dict(self, dictionary: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Stands in for `LightningModule.log_dict`."""
        for name, value in dictionary.items():
            self.log(name, value, *args, **kwargs)

    def emit(self, module: nn.Module) -> None:
        """Log every name once: numbers reduced over the workers by `reduce_fx`, of other values the last."""
        for name, values in self.values.items():
            args, kwargs = self.arguments[name]
            log: Any = module.log
            log(name, _reduced(values, kwargs.get("reduce_fx", args[_POSITION] if len(args) > _POSITION else "mean")),
                *args, **kwargs)  # fmt: skip


def _reduced(values: Sequence[Any], reduction: Any) -> Any:
    if len(values) == 1 or not all(isinstance(value, int | float | Tensor) for value in values):
        return values[-1]
    reduce = _REDUCTIONS.get(reduction.lower() if isinstance(reduction, str) else reduction)
    if reduce is None:  # Lightning rejects it itself
        return values[-1]
    if reduce is torch.mean:
        return sum(values) / len(values)
    return reduce(torch.stack([torch.as_tensor(value) for value in values]))


@contextlib.contextmanager
def logging_replaced(module: nn.Module, notes: Any) -> Iterator[None]:
    """Replace `module.log` and `module.log_dict` by those of `notes`; restore them on exit."""
    shadows = {"log": notes.log, "log_dict": notes.log_dict}
    before = {name: vars(module)[name] for name in shadows if name in vars(module)}
    vars(module).update(shadows)
    try:
        yield
    finally:
        for name in shadows:
            del vars(module)[name]
        vars(module).update(before)


@contextlib.contextmanager
def logging_once(module: nn.Module) -> Iterator[None]:
    """Log what workers log inside once, on exit."""
    with logging_replaced(module, notes := Notes()):
        yield
    notes.emit(module)


class Traces:
    """A snapshot of a module's attributes, to detect and undo what a step changes there.

    Containers are restored in place, as other code may hold references to them. Tensors changed in place are restored
    in metrics only: `WorkerBuffers` handles buffers, and other tensors may be of any size.
    """

    def __init__(self, module: nn.Module) -> None:
        self.attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.contents: list[tuple[Any, Any]] = []  # (container with entries, or tensor; its copy)
        self.empty: list[Any] = []
        self.noted: set[int] = set()
        for m in module.modules():
            now, is_metric = vars(m), isinstance(m, Metric)
            self.attributes.append((now, now.copy()))
            for value in now.values():
                if _is_container(type(value)):
                    self._note(value)
                elif is_metric and isinstance(value, Tensor):
                    self.contents.append((value, value.clone()))

    def _note(self, container: Any) -> None:
        if not container:
            self.empty.append(container)
        elif id(container) not in self.noted:
            self.noted.add(id(container))
            self.contents.append((container, container.copy()))
            if len(container) <= NUM_LOOKED_INTO:
                for value in container.values() if isinstance(container, dict) else container:
                    if _is_container(type(value)):
                        self._note(value)

    def undo(self) -> None:
        """Restore all attributes and containers."""
        for now, before in self.attributes:
            if not _holds_the_same(now, before):
                now.clear()
                now.update(before)
        for container in self.empty:
            if container:
                container.clear()
        for value, content in self.contents:
            if isinstance(value, Tensor):
                value.copy_(content)
            elif isinstance(value, list):
                value[:] = content
            else:
                value.clear()
                (value.extend if isinstance(value, deque) else value.update)(content)

    def hold_tracers(self) -> bool:
        """Whether anything stored since is a tensor of vmap's, which is unusable outside vmap."""
        return any(isinstance(item, Tensor) and is_batchedtensor(item) for item in self._kept())

    def _kept(self) -> Iterator[Any]:
        """Yield the values in attributes and containers that may have changed since."""
        changed = [now for now, before in self.attributes if not _holds_the_same(now, before)]
        for now in changed:
            for value in now.values():
                yield value
                if _is_container(type(value)) or isinstance(value, tuple):
                    yield from value.values() if isinstance(value, dict) else value
        containers = [(value, content) for value, content in self.contents if not isinstance(value, Tensor)]
        for value, content in [*containers, *((container, ()) for container in self.empty if container)]:
            if isinstance(value, dict):
                if not content or not _holds_the_same(value, content):
                    yield from value.values()
            elif len(value) != len(content) or len(value) <= NUM_LOOKED_INTO or value[-1] is not content[-1]:
                yield from value


@cache
def _is_container(kind: type) -> bool:
    return issubclass(kind, CONTAINERS)


def _holds_the_same(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Whether two dicts hold the same objects under the same keys, in the same order."""
    return len(now) == len(before) and all(map(is_, now.values(), before.values())) and all(map(eq, now, before))


@contextlib.contextmanager
def without_traces(module: nn.Module) -> Iterator[None]:
    """Undo on exit what a step changes in a module's attributes."""
    traces = Traces(module)
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
