"""Measurements of a round: norms of gradients and of compression errors, and the fewest bits that messages need.

Taken only in gauged rounds, for which they are requested, since they take further passes over the gradients.
"""

import numpy as np
import torch
from torch import Tensor

from bench.gradients.engines import WorkerGradients
from bench.wire.message import Message


class Gauges:
    """Measurements of the L local workers: all NaN in a round that is not gauged.

    Attributes:
        gradients: (L,) ‖g_m‖².
        inputs: (L,) ‖x_m‖², of what an uploader compressed; NaN for the others.
        errors: (L,) ‖x_m − C(x_m)‖²; NaN for the others.
        bounds: (L,) `Message.bound` of an uploader's message, in bits; NaN for the others.
    """

    def __init__(self, gradients: WorkerGradients) -> None:
        self.gradients, self.inputs, self.errors, self.bounds = np.full((4, len(gradients.losses)), np.nan)

    def sent_as_they_are(self, rows: Tensor, message: Message) -> None:
        """Record that these rows sent their gradients uncompressed."""

    def compressed(self, row: int, x: Tensor, message: Message) -> None:
        """Record that a row compressed its vector (1, d) to this message."""


class Measured(Gauges):
    """The measurements of a gauged round."""

    def __init__(self, gradients: WorkerGradients) -> None:
        super().__init__(gradients)
        rows = range(len(self.gradients))
        self.gradients = np.array([_square(gradients.dense(torch.tensor([row]))) for row in rows])

    def sent_as_they_are(self, rows: Tensor, message: Message) -> None:
        self.inputs[rows] = self.gradients[rows]
        self.errors[rows] = 0
        self.bounds[rows] = message.bound

    def compressed(self, row: int, x: Tensor, message: Message) -> None:
        self.inputs[row] = _square(x)
        self.errors[row] = _square(message.subtract_from(x.clone()))
        self.bounds[row] = float(message.bound)


def _square(x: Tensor) -> float:
    return torch.linalg.vector_norm(x, dtype=torch.float64).item() ** 2
