"""The loop: one worker after another through autograd. Correct for every module; the reference for other engines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines.base import Engine, RowGradients, Step, WorkerGradients, split_output, without_gradients
from bench.gradients.layout import Layout
from bench.gradients.marks import clone
from bench.gradients.randomness import lent, seed
from bench.gradients.traces import Notes, logging_once, logging_replaced, without_traces
from bench.kernels.noise import Noise
from bench.kernels.sums import sum_in_order


class DenseGradients(WorkerGradients):
    """Gradients as a matrix (R, d)."""

    def __init__(self, losses: Tensor, matrix: Tensor, extras: Sequence[Mapping[str, Any]] = ()) -> None:
        self.losses = losses
        self.matrix = matrix
        self.extras = extras

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.index_select(self.matrix, 0, rows.to(self.matrix.device), out=out)

    def sum(self, rows: Tensor) -> Tensor:
        return sum_in_order([self.matrix[row] for row in rows.tolist()])

    def finite(self) -> Tensor:
        if self.matrix.sum(dim=1).isfinite().all():  # reads the matrix once: NaN and infinity carry over to a sum
            return torch.ones(len(self.matrix), dtype=torch.bool)
        return self.matrix.isfinite().all(dim=1)

    def squared_distance(self, rows: Tensor, other: RowGradients) -> Tensor:
        theirs, distances = torch.empty_like(self.matrix[:1]), []
        for i, row in enumerate(rows.tolist()):
            (change,) = other.dense(torch.tensor([i]), out=theirs).sub_(self.matrix[row])
            distances.append(change.dot(change))
        return torch.stack(distances)


class DeferredGradients(RowGradients):
    """Gradients computed when read: a lazy rule reads each once, and many would not fit beside those of the round.

    Args:
        like: (d,), of the gradients' dtype and device.
        compute: writes the gradient of a row to a vector (d,).
    """

    def __init__(self, like: Tensor, compute: Callable[[int, Tensor], None]) -> None:
        self.like = like
        self.compute = compute

    def dense(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        out = self.like.new_empty(len(rows), len(self.like)) if out is None else out
        for row, into in zip(rows.tolist(), out, strict=True):
            self.compute(row, into)
        return out


class LoopEngine(Engine):
    def __init__(self, module: nn.Module, layout: Layout, buffers: WorkerBuffers) -> None:
        super().__init__(module, layout, buffers)
        self.matrix = layout.vector.new_empty(0, 0)  # reused: fresh memory pages cost as much as the numbers in them

    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> DenseGradients:
        vector, extras = self.layout.vector, []
        if len(self.matrix) != len(noise):
            self.matrix = vector.new_empty(len(noise), len(vector))
        losses = vector.new_empty(len(noise))
        with logging_once(self.module), lent(vector.device):
            self.buffers.attributes.begin_pass(noise[0])
            for worker, origin in enumerate(noise):
                self.buffers.load(worker)
                at = vector if parameters is None else parameters[worker]
                loss, extra = self._gradient(at, step, shards.of(worker), origin, self.matrix[worker])
                losses[worker] = loss
                extras.append(extra)
                self.buffers.settle()
        return DenseGradients(losses, self.matrix, extras)

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> DeferredGradients:
        def compute(row: int, out: Tensor) -> None:
            attributes = self.buffers.attributes
            with self.buffers.undone():
                self.buffers.load(rows[row])
                with (
                    attributes.as_then(noise[row], rows[row]),
                    without_traces(attributes.reached),
                    logging_replaced(self.module, Notes()),
                    lent(self.layout.vector.device),
                ):
                    self._gradient(parameters[row], step, shards.of(row), noise[row], out)

        return DeferredGradients(self.layout.vector, compute)

    def _gradient(
        self, parameters: Tensor, step: Step, batch: Any, noise: Noise, out: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """Write the loaded worker's gradient at `parameters` (d,) to `out` (d,); return its loss and other outputs."""
        seed(noise, self.layout.vector.device)
        with self.layout.bound_to(parameters), without_gradients(self.layout.parameters):
            loss, extras = split_output(step(batch))
            for p in self.layout.parameters:
                p.grad = None  # of a backward pass within the step, which Lightning's zero_grad drops
            if loss.requires_grad:
                loss.backward()
            else:
                rank_zero_warn("training_step: the loss of a batch does not depend on parameters; its gradient is 0")
            for slot, (view, p) in enumerate(zip(self.layout.views(out), self.layout.parameters, strict=True)):
                if p.grad is None:
                    view.zero_()
                    self.unreached.add(slot)
                else:
                    view.copy_(p.grad.to_dense() if p.grad.is_sparse else p.grad)
        return loss.detach(), tree_map_only(Tensor, clone, extras)  # copies: the next step may write a buffer
