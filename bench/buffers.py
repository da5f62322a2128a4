"""Buffers such as batch norm's running statistics: a row a worker, as if each had a module of its own."""

import torch
from torch import Tensor, nn


class WorkerBuffers:
    """The buffers of the workers in this process.

    Args:
        module: whose buffers they are; its own values are every worker's first.
        num_workers: L.
    """

    def __init__(self, module: nn.Module, num_workers: int) -> None:
        self.buffers = dict(module.named_buffers())
        self.rows = {name: torch.stack([b.detach()] * num_workers) for name, b in self.buffers.items()}

    def load(self, worker: int) -> None:
        """Give the module this worker's buffers."""
        for name, buffer in self.buffers.items():
            buffer.copy_(self.rows[name][worker])

    def store(self, worker: int) -> None:
        """Keep what the module's step made of them."""
        for name, buffer in self.buffers.items():
            self.rows[name][worker] = buffer

    def average(self, everyone: dict[str, Tensor], ranks: slice = slice(None)) -> None:
        """Give the module the mean of these workers' rows of all M, to be evaluated; of whole numbers the first's."""
        for name, buffer in self.buffers.items():
            rows = everyone[name][ranks].to(buffer.device)
            buffer.copy_(rows.mean(dim=0) if buffer.is_floating_point() else rows[0])

    def state_dict(self) -> dict[str, Tensor]:
        """(L, …) by name, on the CPU."""
        return {name: rows.cpu() for name, rows in self.rows.items()}

    def load_state_dict(self, everyone: dict[str, Tensor], ranks: range) -> None:
        """Take the local workers' rows from those of all M."""
        self.rows = {name: everyone[name][list(ranks)].to(rows.device) for name, rows in self.rows.items()}
