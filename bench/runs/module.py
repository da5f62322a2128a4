"""The LightningModules that the suite trains. Any other works as well."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from bench.errors import InputError
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.reached import Reached
from bench.gradients.traces import Notes, logging_replaced, without_traces


class Problem(lightning.LightningModule):
    """A network with its optimizer and learning rate schedule.

    Args:
        network: whose parameters are trained.
        optimizer: parameters -> an optimizer.
        schedule: an optimizer -> its learning rate's schedule, stepped every epoch; a constant rate if None.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.schedule = schedule

    def on_fit_start(self) -> None:
        """Check that a step can read the data.

        Raises:
            InputError: it cannot.
        """
        from bench.suite.datamodules.sharding import ShardedData

        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ShardedData):
            return
        batch = [t.to(self.device) for t in data.test[torch.arange(1)]]
        try:
            with _tried(self), torch.no_grad():
                self.training_step(batch)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            given = f"{type(data).__name__}; {type(self).__name__} with {type(self.network).__name__}"
            raise InputError(f"data: {given} cannot read it: {error}") from error

    def training_step(self, batch: Any) -> Tensor:
        """The loss of a batch, a tensor per column of the data."""
        raise NotImplementedError  # each problem defines its own

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule if there is one.

        Raises:
            InputError: the optimizer or its schedule cannot be made, or this not stepped.
        """
        try:
            optimizer = self.optimizer(self.parameters())
        except (TypeError, ValueError) as error:
            raise InputError(f"optimizer: {error}") from error
        if self.schedule is None:
            return optimizer
        try:
            tried = self.schedule(self.optimizer([nn.Parameter(torch.zeros(1))]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that its optimizer has not stepped
                tried.step()  # some mistakes, such as a period of 0, show only here
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"schedule: {error}") from error
        return [optimizer], [self.schedule(optimizer)]


@contextlib.contextmanager
def _tried(module: lightning.LightningModule) -> Iterator[None]:
    """Inside, a step of the module leaves no trace: it normalises, drops nothing out, and logs nowhere."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with (
            WorkerBuffers(module, 1).undone(thorough=True),
            without_traces(Reached(module)),
            logging_replaced(module, Notes()),
        ):
            yield
    finally:
        for m, mode in modes:
            m.training = mode


class LanguageModel(Problem):
    """A network that predicts the next token. Logs the mean loss of a token, in nats, and its exponential, perplexity.

    Args:
        network: (B, T) tokens -> (B, T, V) logits of the next ones.
        optimizer: parameters -> an optimizer.
        schedule: an optimizer -> its learning rate's schedule, stepped every epoch; a constant rate if None.
    """

    def training_step(self, batch: Any) -> Tensor:
        tokens, following = batch
        return F.cross_entropy(self.network(tokens).flatten(0, 1), following.flatten())

    def on_validation_epoch_start(self) -> None:
        self.loss_sum, self.num_passages = 0.0, 0

    def validation_step(self, batch: Any) -> None:
        self.loss_sum += float(self.training_step(batch)) * len(batch[0])
        self.num_passages += len(batch[0])

    def on_validation_epoch_end(self) -> None:
        loss = self.loss_sum / self.num_passages
        self.log_dict({"val_loss": loss, "val_perplexity": math.exp(min(loss, 700))}, logger=False)


class Classifier(Problem):
    """A network under cross-entropy, its accuracy logged as `test_accuracy` and `test_top5_accuracy`.

    Args:
        network: (B, …) images -> (B, C) logits.
        optimizer: parameters -> an optimizer.
        schedule: an optimizer -> its learning rate's schedule, stepped every epoch; a constant rate if None.
    """

    def on_fit_start(self) -> None:
        """Check that the network reads the data's images, and outputs one logit per class.

        Raises:
            InputError: it does not.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if not (hasattr(data, "num_classes") and hasattr(data, "test")):
            super().on_fit_start()
            return
        images, _ = data.test[torch.arange(1)]
        try:
            with _tried(self), torch.no_grad():
                logits = self.network(images.to(self.device, next(self.parameters()).dtype))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            shape = " × ".join(map(str, images.shape[1:]))
            raise InputError(f"model: its network cannot read the data's images of {shape}: {error}") from error
        if (given := logits.shape[1]) != data.num_classes:
            raise InputError(
                f"model.num_classes: {given}; the data have {data.num_classes} classes, as many are needed"
            )

    def training_step(self, batch: Any) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: Any) -> None:
        images, labels = batch
        logits = self.network(images)
        right = {
            "test_accuracy": logits.argmax(dim=1) == labels,
            "test_top5_accuracy": (logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]).any(dim=1),
        }
        means = {name: flags.double().mean() for name, flags in right.items()}
        self.log_dict(means, batch_size=len(labels), logger=False)  # History logs it, with all costs
