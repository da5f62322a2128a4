"""Which engine: the loop, or one that was tried on a batch and gave the same."""

import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

import lightning
import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource, reportMissingImports]

from bench.buffers import WorkerBuffers
from bench.engines.base import Engine, Step
from bench.engines.joint import JointEngine
from bench.engines.loop import LoopEngine
from bench.engines.traces import without_traces
from bench.engines.vmap import VmapEngine
from bench.errors import InputError
from bench.layout import Layout
from bench.noise import Noise

EngineName = Literal["auto", "loop", "joint", "vmap"]
ENGINES: dict[str, type[Engine]] = {"loop": LoopEngine, "joint": JointEngine, "vmap": VmapEngine}
HALF_TOLERANCE = 0.25  # of engines in half precision, which moves the gradient of a ResNet20 by a tenth itself


def make_engine(name: str, module: lightning.LightningModule, layout: Layout, buffers: WorkerBuffers) -> Engine:
    """The engine of that name.

    Raises:
        InputError: there is none.
    """
    if name not in ENGINES:
        raise InputError(f"engine: {name!r}; one of {', '.join(get_args(EngineName))} is needed")
    return ENGINES[name](module, layout, buffers)


class Trial:
    """A batch on which engines are tried, leaving nothing behind.

    Args:
        module, layout, buffers: as of an engine.
        step, batch, noise: as of `Engine.gradients`.
        exact: whether steps compute in single precision throughout.
    """

    def __init__(
        self,
        module: lightning.LightningModule,
        layout: Layout,
        buffers: WorkerBuffers,
        step: Step,
        batch: Any,
        noise: Sequence[Noise],
        exact: bool = True,
    ) -> None:
        self.module = module
        self.layout = layout
        self.buffers = buffers
        self.step = step
        self.batch = batch
        self.noise = noise
        self.exact = exact

    def choose(self) -> str:
        """The name of an engine that gives what the loop gives, within its tolerance.

        On the CPU, one with the same bits in every world; on an accelerator, the fastest on this batch.
        """
        on_accelerator = self.layout.vector.device.type != "cpu"
        joint = JointEngine(self.module, self.layout, self.buffers)
        candidates = ["joint", "vmap"] if on_accelerator else ["joint"] if joint.is_exact() else []
        agreeing = [name for name in candidates if self.agrees(self._engine(name))]
        if not on_accelerator:
            return "joint" if agreeing else "loop"
        return min(["loop", *agreeing], key=lambda name: self.seconds(self._engine(name)))

    def agrees(self, engine: Engine) -> bool:
        """Whether an engine's losses, gradients and buffers are the loop's, but for rounding."""
        try:
            tried = self._run(engine)
        except Exception:  # whatever a user's step does that vmap cannot: the loop can, or shows the true error
            return False
        if tried is None:
            return False
        reference = self._run(self._engine("loop"))
        assert reference is not None
        tolerance = engine.tolerance if self.exact else HALF_TOLERANCE
        return all(_alike(tried[name], expected, tolerance) for name, expected in reference.items())

    def seconds(self, engine: Engine) -> float:
        """How long an engine takes for all gradients of this batch, written out, once warm."""
        device = self.layout.vector.device

        def now() -> float:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            return time.perf_counter()

        started = 0.0
        for _ in range(3):
            started = now()
            self._run(engine)
        return now() - started

    def _engine(self, name: str) -> Engine:
        return make_engine(name, self.module, self.layout, self.buffers)

    def _run(self, engine: Engine) -> dict[str, Tensor] | None:
        """Losses, gradients and buffers, a row a worker; None where the step kept a tensor of vmap's."""
        rows = self.buffers.rows
        self.buffers.rows = {name: values.clone() for name, values in rows.items()}
        try:
            with without_traces(self.module):
                gradients = engine.gradients(self.step, self.batch, self.noise)
                dense = gradients.dense(torch.arange(len(self.noise)))
                if _holds_tracers(self.module):
                    return None
            return {**self.buffers.rows, "losses": gradients.losses, "gradients": dense}
        finally:
            self.buffers.rows = rows


def _alike(tried: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether rows differ by no more than a fraction of their length."""
    if not expected.is_floating_point():
        return torch.equal(tried, expected)
    tried, expected = tried.reshape(len(tried), -1), expected.reshape(len(expected), -1)
    distance, allowed = (tried - expected).norm(dim=1), tolerance * expected.norm(dim=1)
    return bool((distance <= allowed).logical_or(distance.isnan()).all())  # what is broken shows in the round


def _holds_tracers(module: lightning.LightningModule) -> bool:
    """Whether a step kept a tensor of vmap's, which is worthless outside it."""
    values = [value for m in module.modules() for value in vars(m).values()]
    kept = [item for value in values for item in (value if isinstance(value, list | tuple | set) else [value])]
    kept += [item for value in values if isinstance(value, dict) for item in value.values()]
    return any(isinstance(item, Tensor) and is_batchedtensor(item) for item in kept)
