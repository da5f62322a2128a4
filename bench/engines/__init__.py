"""Engines: how the gradients of the workers in this process are computed."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import lightning
import torch
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]

from bench.buffers import WorkerBuffers
from bench.engines.base import Engine, RowGradients, Step, WorkerGradients
from bench.engines.linear import LinearEngine
from bench.engines.loop import LoopEngine
from bench.errors import InputError
from bench.layout import Layout
from bench.noise import Noise

EngineName = Literal["auto", "loop", "linear"]

__all__ = ["Engine", "EngineName", "LinearEngine", "LoopEngine", "RowGradients", "WorkerGradients", "choose_engine"]


def choose_engine(
    name: EngineName,
    module: lightning.LightningModule,
    layout: Layout,
    buffers: WorkerBuffers,
    step: Step,
    batch: Any,
    noise: Sequence[Noise],
) -> Engine:
    """The named engine, or with "auto" the fastest one whose gradients on this batch equal the loop's.

    Raises:
        InputError: no engine of that name.
    """
    loop, linear = LoopEngine(module, layout, buffers), LinearEngine(module, layout)
    if name not in ("auto", "loop", "linear"):
        raise InputError(f"engine: {name!r}; one of auto, loop, linear is needed")
    if name != "auto":
        return loop if name == "loop" else linear
    if not LinearEngine.fits(module, layout):
        return loop
    rows = torch.arange(len(noise))
    with _without_traces(module):
        try:
            tried = linear.gradients(step, batch, noise).dense(rows)
        except Exception:  # whatever a user's step does that vmap cannot: the loop can, or shows the true error
            return loop
        if _holds_tracers(module):
            return loop
        reference = loop.gradients(step, batch, noise).dense(rows)
    tolerance = 1e-5 * float(reference.abs().max())
    return linear if torch.allclose(tried, reference, rtol=1e-4, atol=tolerance, equal_nan=True) else loop


@contextlib.contextmanager
def _without_traces(module: lightning.LightningModule) -> Iterator[None]:
    """Undo what a trial leaves in the module's attributes, such as a loss appended to a list."""

    def copied(value: Any) -> Any:
        return copy.copy(value) if isinstance(value, list | dict | set) else value

    before = {m: {name: copied(value) for name, value in vars(m).items()} for m in module.modules()}
    try:
        yield
    finally:
        for m, attributes in before.items():
            vars(m).clear()
            vars(m).update(attributes)


def _holds_tracers(module: lightning.LightningModule) -> bool:
    """Whether a step kept a tensor of vmap's, which is worthless outside it."""
    values = [value for m in module.modules() for value in vars(m).values()]
    kept = [item for value in values for item in (value if isinstance(value, list | tuple | set) else [value])]
    kept += [item for value in values if isinstance(value, dict) for item in value.values()]
    return any(isinstance(item, torch.Tensor) and is_batchedtensor(item) for item in kept)
