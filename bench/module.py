"""The LightningModule the suite trains. Any other does as well."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(lightning.LightningModule):
    """A network under cross-entropy, its accuracy logged as `test_accuracy`.

    Args:
        network: (B, …) images -> (B, C) logits.
        optimizer: parameters -> an optimizer.
    """

    def __init__(
        self, network: nn.Module, optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer

    def training_step(self, batch: Any) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: Any) -> None:
        images, labels = batch
        accuracy = (self.network(images).argmax(dim=1) == labels).double().mean()
        self.log("test_accuracy", accuracy, batch_size=len(labels), logger=False)  # History logs, with every cost

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())
