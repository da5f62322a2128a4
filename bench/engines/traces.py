"""What a step leaves behind besides its loss: what it logs, lists in the module, batches that a metric has counted."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric


@contextlib.contextmanager
def logging_replaced(module: nn.Module, log: Callable[..., None]) -> Iterator[None]:
    """Let `module.log` and `module.log_dict` be `log` for a while, and then what they were."""
    shadows = {"log": log, "log_dict": log}
    before = {name: vars(module)[name] for name in shadows if name in vars(module)}
    vars(module).update(shadows)
    try:
        yield
    finally:
        for name in shadows:
            del vars(module)[name]
        vars(module).update(before)


@contextlib.contextmanager
def logging_means(module: nn.Module) -> Iterator[None]:
    """Let what workers log, one after another, be logged once: the mean of numbers, of other things the last."""
    noted: dict[str, tuple[list[Any], tuple[Any, ...], dict[str, Any]]] = {}

    def note(name: str | Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        values, rest = ({name: args[0]}, args[1:]) if isinstance(name, str) else (name, args)  # log, or log_dict
        for key, value in values.items():
            value = value.detach() if isinstance(value, Tensor) else value  # which would keep a worker's activations
            noted.setdefault(key, ([], rest, kwargs))[0].append(value)

    with logging_replaced(module, note):
        yield
    for name, (values, args, kwargs) in noted.items():
        log: Any = module.log
        are_numbers = all(isinstance(value, int | float | Tensor) for value in values)
        log(name, sum(values) / len(values) if are_numbers else values[-1], *args, **kwargs)


@contextlib.contextmanager
def without_traces(module: nn.Module) -> Iterator[None]:
    """Undo what a step leaves in a module's attributes: a loss in a list, a batch that a metric has counted.

    Lists and their like stay the objects that they are, as others may hold them. Tensors that are added to in place
    are put back in metrics only: elsewhere they may be of any size.
    """

    def copied(owner: nn.Module, value: Any) -> Any:
        if isinstance(value, list | dict | set):
            return copy.copy(value)
        return value.clone() if isinstance(owner, Metric) and isinstance(value, Tensor) else None

    before = [(m, dict(vars(m)), {name: copied(m, value) for name, value in vars(m).items()}) for m in module.modules()]
    try:
        yield
    finally:
        for m, attributes, copies in before:
            vars(m).clear()
            vars(m).update(attributes)
            for name, content in copies.items():
                if content is not None:
                    _refill(attributes[name], content)


def _refill(value: Any, content: Any) -> None:
    """Let a container or a tensor hold this again."""
    if isinstance(value, Tensor):
        value.copy_(content)
    elif isinstance(value, list):
        value[:] = content
    else:
        value.clear()
        value.update(content)
