"""What one round was like: the lengths of gradients, of what compression left out, and the least bits for the rest.

Measured in rounds that somebody asks about, since it takes further passes over the gradients.
"""

import numpy as np
import torch
from torch import Tensor

from bench.gradients.engines import WorkerGradients
from bench.wire.message import Message


class Gauges:
    """Squared lengths of the L local workers: of a round that nobody asks about, all NaN.

    Attributes:
        gradients: (L,) ‖g_m‖².
        inputs: (L,) ‖x_m‖², of what an uploader compressed; NaN for the others.
        errors: (L,) ‖x_m − C(x_m)‖²; NaN for the others.
        bounds: (L,) what `Message.bound` says of an uploader's message; NaN for the others.
    """

    def __init__(self, gradients: WorkerGradients) -> None:
        self.gradients, self.inputs, self.errors, self.bounds = np.full((4, len(gradients.losses)), np.nan)

    def sent_as_they_are(self, rows: Tensor, message: Message) -> None:
        """These rows sent their gradients uncompressed."""

    def compressed(self, row: int, x: Tensor, message: Message) -> None:
        """A row made its vector (1, d) a message."""


class Measured(Gauges):
    """Those of a round that somebody asks about."""

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
