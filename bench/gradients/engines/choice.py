"""Choice of the engine: one that matched the loop in a trial, until a step does what it cannot; otherwise the loop."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import lightning
import torch
from torch import Tensor

from bench.errors import InputError
from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines.base import Engine, RowGradients, Step, UnsupportedModule, WorkerGradients
from bench.gradients.engines.joint import JointEngine
from bench.gradients.engines.loop import LoopEngine
from bench.gradients.engines.vmap import VmapEngine
from bench.gradients.layout import Layout
from bench.gradients.randomness import lent
from bench.gradients.traces import Notes, Traces, logging_replaced
from bench.kernels.noise import Noise

EngineName = Literal["auto", "loop", "joint", "vmap"]
ENGINES: dict[str, type[Engine]] = {"loop": LoopEngine, "joint": JointEngine, "vmap": VmapEngine}
HALF_TOLERANCE = 0.25  # for half precision, which alone changes the gradient of a ResNet20 by a tenth


def make_engine(name: str, module: lightning.LightningModule, layout: Layout, buffers: WorkerBuffers) -> Engine:
    """The engine of that name.

    Raises:
        InputError: there is none.
    """
    if name not in ENGINES:
        raise InputError(f"engine: {name!r}; one of {', '.join(get_args(EngineName))} is needed")
    return ENGINES[name](module, layout, buffers)


class FallingBack(Engine):
    """The engine chosen by a trial, replaced by the loop for good once a step does what that engine cannot.

    Such a pass is undone and repeated by the loop. On a CPU both give the same gradients bit for bit, or the engine
    would not have been chosen; so workers in other processes need not repeat theirs, and use the loop from the next
    round on.

    Args:
        name: of the chosen engine.
        module, layout, buffers: as for any engine.

    Attributes:
        name: of the engine in use.
    """

    def __init__(self, name: str, module: lightning.LightningModule, layout: Layout, buffers: WorkerBuffers) -> None:
        super().__init__(module, layout, buffers)
        self.loop = LoopEngine(module, layout, buffers)
        self.chosen = self.loop if name == "loop" else make_engine(name, module, layout, buffers)
        self.name = name
        self.chosen.unreached = self.loop.unreached = self.unreached

    def fall_back(self) -> None:
        """Use the loop from now on."""
        self.name = "loop"
        self.chosen = self.loop
        if self.layout.vector.device.type == "cuda":
            torch.cuda.empty_cache()  # the engine may have run out of memory; the loop needs less

    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> WorkerGradients:
        if self.chosen is not self.loop:
            try:
                return self.chosen.gradients(step, shards, noise, parameters)
            except Exception:  # whatever the user's step raised: the loop can run it, or shows the true error
                self.fall_back()
        return self.loop.gradients(step, shards, noise, parameters)

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> RowGradients:
        if self.chosen is not self.loop:
            try:
                return self.chosen.gradients_at(parameters, rows, step, shards, noise)
            except Exception:
                self.fall_back()
        return self.loop.gradients_at(parameters, rows, step, shards, noise)


class Trial:
    """Tries engines on one batch, without side effects.

    Args:
        module, layout, buffers: as for an engine.
        step, shards, noise: as for `Engine.gradients`.
        exact: whether steps compute in single precision throughout.
        elsewhere: whether gradients at past parameters are needed, too.
    """

    def __init__(
        self,
        module: lightning.LightningModule,
        layout: Layout,
        buffers: WorkerBuffers,
        step: Step,
        shards: Shards,
        noise: Sequence[Noise],
        exact: bool = True,
        elsewhere: bool = False,
    ) -> None:
        self.module = module
        self.layout = layout
        self.buffers = buffers
        self.step = step
        self.shards = shards
        self.noise = noise
        self.exact = exact
        self.elsewhere = elsewhere

    def choose(self) -> str:
        """The name of an engine whose results match the loop's.

        On a CPU, one that gives the loop's bits, in every world; on an accelerator, the fastest on this batch among
        those that match within their tolerance.
        """
        if self.buffers.attributes.reached.iterators:
            return "loop"  # a trial would use up what nobody can rewind
        if self.layout.vector.device.type == "cpu":
            joint = JointEngine(self.module, self.layout, self.buffers)
            return "joint" if joint.is_exact() and self.agrees(joint, to_the_bit=True) else "loop"
        agreeing = [name for name in ("joint", "vmap") if self.agrees(self._engine(name))]
        return min(["loop", *agreeing], key=lambda name: self.seconds(self._engine(name)))

    def agrees(self, engine: Engine, to_the_bit: bool = False) -> bool:
        """Whether an engine's losses, gradients and buffers match the loop's up to rounding.

        Args:
            engine: to try.
            to_the_bit: whether gradients must match exactly.
        """
        try:
            tried = self._run(engine)
        except UnsupportedModule:
            return False
        except InputError:  # of the step itself: a loop after it may find no trace of what is wrong
            raise
        except Exception:  # whatever vmap cannot do in the user's step: the loop can, or shows the true error
            return False
        reference = self._run(self._engine("loop"))
        tolerance = engine.tolerance if self.exact else HALF_TOLERANCE
        return tried.keys() == reference.keys() and all(
            _alike(tried[name], expected, 0.0 if to_the_bit and name == "gradients" else tolerance)
            for name, expected in reference.items()
        )

    def seconds(self, engine: Engine) -> float:
        """Seconds that an engine, once warm, takes to compute and write out all gradients of this batch."""
        device = self.layout.vector.device

        def now() -> float:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            return time.perf_counter()

        started = 0.0
        for _ in range(3):
            started = now()
            for _ in self._run(engine)["gradients"]:
                pass  # written out
        return now() - started

    def _engine(self, name: str) -> Engine:
        return make_engine(name, self.module, self.layout, self.buffers)

    def _run(self, engine: Engine) -> dict[str, Any]:
        """Losses, gradients and written buffers, one row per worker."""
        traces = Traces(self.buffers.attributes.reached)
        try:
            with (
                lent(self.layout.vector.device),
                self.buffers.undone(thorough=True),
                logging_replaced(self.module, Notes()),
            ):
                gradients = engine.gradients(self.step, self.shards, self.noise)
                moved = self.buffers.local(list(self.buffers.rows))
                found = {**moved, "losses": gradients.losses, "gradients": _dense_rows(gradients)}
                if self.elsewhere:  # where a step reads a parameter behind an engine's back, that is the present one
                    past, workers = 0.9 * self.layout.vector, range(len(self.noise))
                    there = engine.gradients_at([past] * len(workers), workers, self.step, self.shards, self.noise)
                    found["elsewhere"] = there.dense(torch.arange(len(workers)))
            return found
        finally:
            traces.undo()


def _dense_rows(gradients: WorkerGradients) -> Iterator[Tensor]:
    """One row after another, as all at once take as much memory as the loop's."""
    for row in range(len(gradients.losses)):
        yield gradients.dense(torch.tensor([row]))[0]


def _alike(tried: Iterable[Any], expected: Iterable[Any], tolerance: float) -> bool:
    """Whether each row differs from the expected one by at most a fraction of its norm."""
    for row, wanted in zip(tried, expected, strict=True):
        if row is None or wanted is None or row.shape != wanted.shape or not wanted.is_floating_point():
            if not (row is wanted or (row is not None and wanted is not None and torch.equal(row, wanted))):
                return False
            continue
        distance = (row - wanted).norm()
        if not (distance <= tolerance * wanted.norm() or distance.isnan()):  # the round reports NaN
            return False
    return True
