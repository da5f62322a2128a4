"""The average over workers of what each keeps separately, such as running statistics: evaluated and saved."""

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from bench.collectives.world import World
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.marks import mean
from bench.strategies.apart import Apart


class Averages:
    """The average of the workers' buffers over all processes.

    Args:
        buffers: of the workers in this process.
        world: where the workers run.
        apart: the workers' parameters, where they never meet.
    """

    def __init__(self, buffers: WorkerBuffers, world: World, apart: Apart | None) -> None:
        self.buffers = buffers
        self.world = world
        self.apart = apart
        self._everyone: dict[str, list[Any]] = {}
        self._serving = slice(None)

    def everyone(self) -> dict[str, list[Any]]:
        """All M workers' rows of the tensors that steps write, by name. All processes must call it."""
        local = self.buffers.moved()
        names = sorted({name for names in self.world.gather(local) for name in names})
        if not names:
            return {}
        rows = self.buffers.local(names)
        if self.world.size > len(self.world.local_ranks):
            rows = {name: [None if row is None else row.cpu() for row in each] for name, each in rows.items()}
        everyone = self.world.gather(rows)
        return {name: [row for rows in everyone for row in rows[name]] for name in names}

    def put(self) -> None:
        """Write the average over all workers to the module."""
        self.put_back()  # in case it is there, and a callback has changed it
        self._everyone, self._serving = self.everyone(), slice(None)
        self.buffers.put_mean(self._everyone)
        if self.apart is not None:
            self.apart.put()

    def put_back(self) -> None:
        """Restore what the workers have of their own."""
        self.buffers.put_back()
        if self.apart is not None:
            self.apart.put_back()

    def serve(self, ranks: slice) -> None:
        """Write the average over some workers to the module. Call after `put`."""
        if ranks != self._serving:
            self.buffers.put_mean(self._everyone, ranks)
            self._serving = ranks

    def in_place_of(self, state: dict[str, Any]) -> dict[str, Any]:
        """A module's state, by name, with averages where workers have their own values."""
        averages = {name: mean(rows) for name, rows in self.everyone().items()}
        if self.apart is not None:
            averages |= self.apart.named()
        return {name: averages.get(self.buffers.names.get(name, name), value) for name, value in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """All M workers' rows by name, as one tensor (M, …) where their shapes are equal."""
        return {name: _together(rows) for name, rows in self.everyone().items()}


class AveragesFirst(lightning.Callback):
    """Writes the averages to the module before other callbacks and the module act: when an evaluation within a fit
    starts, after which the strategy puts the workers' own back, and when the fit ends."""

    def __init__(self, averages: Averages) -> None:
        self.averages = averages

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn is TrainerFn.FITTING:
            self.averages.put()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.averages.put()


def _together(rows: Sequence[Any]) -> Any:
    alike = all(isinstance(row, Tensor) and row.shape == rows[0].shape for row in rows)
    return torch.stack(list(rows)) if alike and rows[0].layout is torch.strided else list(rows)
