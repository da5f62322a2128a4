"""Engines: how the gradients of the workers in this process are computed."""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import lightning
import torch
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]

from bench.buffers import WorkerBuffers
from bench.engines.base import Engine, RowGradients, Step, WorkerGradients
from bench.engines.joint import JointEngine
from bench.engines.loop import LoopEngine
from bench.engines.vmap import VmapEngine
from bench.errors import InputError
from bench.layout import Layout
from bench.noise import Noise

EngineName = Literal["auto", "loop", "joint", "vmap"]

__all__ = [
    "Engine",
    "EngineName",
    "JointEngine",
    "LoopEngine",
    "RowGradients",
    "VmapEngine",
    "WorkerGradients",
    "choose_engine",
]


def choose_engine(
    name: EngineName,
    module: lightning.LightningModule,
    layout: Layout,
    buffers: WorkerBuffers,
    step: Step,
    batch: Any,
    noise: Sequence[Noise],
    exact: bool = True,
) -> Engine:
    """The named engine, or with "auto" one whose gradients on this batch equal the loop's.

    On the CPU that is an engine which gives the same bits in every world; on an accelerator the fastest on this batch.

    Args:
        exact: whether steps compute in single precision throughout; half precision is left to engines that keep it.

    Raises:
        InputError: no engine of that name.
    """
    loop, joint, vmap = (
        LoopEngine(module, layout, buffers), JointEngine(module, layout, buffers), VmapEngine(module, layout, buffers),
    )  # fmt: skip
    engines: dict[str, Engine] = {"loop": loop, "joint": joint, "vmap": vmap}
    if name not in get_args(EngineName):
        raise InputError(f"engine: {name!r}; one of {', '.join(get_args(EngineName))} is needed")
    if name == "joint" and not exact:
        raise InputError("engine: joint; it computes in single precision, 32-true or loop is needed")
    if name != "auto":
        return engines[name]
    on_accelerator = layout.vector.device.type != "cpu"
    candidates: list[Engine] = [joint] if exact and (on_accelerator or joint.is_exact()) else []
    if on_accelerator:
        candidates.append(vmap)

    def gradients(engine: Engine) -> WorkerGradients:
        return engine.gradients(step, batch, noise)

    with _without_traces(module, buffers):
        agreeing = [engine for engine in candidates if _agree(gradients, engine, loop, module, exact, len(noise))]
        if on_accelerator:
            return min([loop, *agreeing], key=lambda engine: _seconds(gradients, engine, layout.vector.device))
        return agreeing[0] if agreeing else loop


def _agree(
    gradients: Callable[[Engine], WorkerGradients],
    engine: Engine,
    loop: LoopEngine,
    module: lightning.LightningModule,
    exact: bool,
    num_rows: int,
) -> bool:
    """Whether an engine's gradients are the loop's, but for rounding: the engine's tolerance, 5 % in half precision."""
    rows = torch.arange(num_rows)
    try:
        tried = gradients(engine).dense(rows)
    except Exception:  # whatever a user's step does that vmap cannot: the loop can, or shows the true error
        return False
    if _holds_tracers(module):
        return False
    reference = gradients(loop).dense(rows)
    allowed = (engine.tolerance if exact else 0.05) * reference.norm(dim=1)
    return bool(((tried - reference).norm(dim=1) <= allowed).all())


def _seconds(gradients: Callable[[Engine], WorkerGradients], engine: Engine, device: torch.device) -> float:
    """How long an engine takes for this batch, once warm."""

    def now() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    for _ in range(2):
        gradients(engine)
    started = now()
    gradients(engine)
    return now() - started


@contextlib.contextmanager
def _without_traces(module: lightning.LightningModule, buffers: WorkerBuffers) -> Iterator[None]:
    """Undo what a trial leaves in buffers and in the module's attributes, such as a loss appended to a list."""

    def copied(value: Any) -> Any:
        return copy.copy(value) if isinstance(value, list | dict | set) else value

    rows = {name: values.clone() for name, values in buffers.rows.items()}
    before = {m: {name: copied(value) for name, value in vars(m).items()} for m in module.modules()}
    try:
        yield
    finally:
        for m, attributes in before.items():
            vars(m).clear()
            vars(m).update(attributes)
        buffers.rows = rows


def _holds_tracers(module: lightning.LightningModule) -> bool:
    """Whether a step kept a tensor of vmap's, which is worthless outside it."""
    values = [value for m in module.modules() for value in vars(m).values()]
    kept = [item for value in values for item in (value if isinstance(value, list | tuple | set) else [value])]
    kept += [item for value in values if isinstance(value, dict) for item in value.values()]
    return any(isinstance(item, torch.Tensor) and is_batchedtensor(item) for item in kept)
