"""Checks, before training starts, for what a compressed strategy cannot do with a Trainer or a module."""

import contextlib
from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import BaseFinetuning, GradientAccumulationScheduler
from lightning.pytorch.core.optimizer import _MockOptimizer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.nn.parameter import is_lazy

from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.estimators import Estimator
from bench.gradients.layout import Layout

# Arguments of Lightning's DDP strategy that concern its DDP wrapper: without effect, as there is no wrapper here.
HARMLESS = ("find_unused_parameters", "static_graph", "gradient_as_bucket_view", "bucket_cap_mb")


def refuse_options(strategy: type, recipe: str, options: Mapping[str, Any]) -> None:
    """Reject keywords of a strategy that nothing reads.

    Args:
        strategy: its class.
        recipe: the recipe's name, for error messages.
        options: the keywords that are not settings of the recipe.

    Raises:
        InputError: neither the strategy nor its base class in Lightning has such an argument.
    """
    parameters = [p for owner in strategy.__mro__ for p in signature(owner.__init__).parameters.values()]
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for name, value in options.items():
        if name not in known and not (issubclass(strategy, DDPStrategy) and name in HARMLESS):
            raise InputError(f"{name}: {value!r}; neither {recipe}, its parts nor Lightning have it")


def refuse_hooks(options: Mapping[str, Any]) -> None:
    """Check that nothing but the recipe is asked to compress or average.

    Raises:
        InputError: a communication hook, or model averaging.
    """
    for name in ("ddp_comm_hook", "ddp_comm_state", "ddp_comm_wrapper", "model_averaging_period"):
        if options.get(name) is not None:
            raise InputError(f"{name}: {options[name]!r}; recipes compress and average themselves, None is needed")


def refuse_fit(
    trainer: lightning.Trainer, module: lightning.LightningModule, precision: Precision, estimator: Estimator | None
) -> None:
    """Check, before optimizers are created, that rounds can run.

    Raises:
        InputError: manual optimisation, an overridden backward, a step that fetches its batches itself, layers that are
            unfrozen later, lazy parameters, accumulated batches or scaled losses with an estimator, a half
            precision that the device would emulate.
    """
    if not module.automatic_optimization:
        raise InputError("automatic_optimization: False; a compressed strategy steps the optimizer itself")
    if is_overridden("backward", module):
        raise InputError(
            "backward: overridden; one gradient per worker is needed, on_before_backward and on_after_backward are "
            "allowed"
        )
    if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
        raise InputError("training_step: takes dataloader_iter; a batch is needed, which is dealt to the workers")
    callbacks: list[lightning.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    for callback in callbacks:
        if isinstance(callback, BaseFinetuning):
            raise InputError(
                f"callbacks: {type(callback).__name__}; what is trained is settled when fit starts, "
                "fit the frozen module first and the unfrozen one in another fit"
            )
    accumulated = {trainer.accumulate_grad_batches} | {
        number
        for callback in callbacks
        if isinstance(callback, GradientAccumulationScheduler)
        for number in callback.scheduling.values()
    }
    if estimator is not None and getattr(precision, "scaler", None) is not None:
        raise InputError(
            f"precision: {precision.precision}; an estimator or local steps add up gradients of several passes, "
            "which may differ in scale, bf16-mixed or 32-true is needed"
        )
    if estimator is not None and accumulated != {1}:
        raise InputError(f"accumulate_grad_batches: {max(accumulated)}; with an estimator or local steps 1 is needed")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(f"parameters: {name} has no shape yet; run a batch through the module before fit")
    device, given = trainer.strategy.root_device, precision.precision
    if "bf16" in str(given) and not _has_bfloat16(device):
        raise InputError(f"precision: {given}; {device} does not compute in it, 32-true is needed")


@contextlib.contextmanager
def one_optimizer() -> Iterator[None]:
    """Report several optimizers in our own words: Lightning's advise manual optimisation, which is rejected, too.

    Raises:
        InputError: there are several.
    """
    try:
        yield
    except RuntimeError as error:
        if "multiple optimizers" not in str(error):
            raise
        told = "several; exactly 1 is needed, to step by the one direction that a round gives"
        raise InputError(f"configure_optimizers: {told}") from error


def refuse_optimizers(optimizers: list[torch.optim.Optimizer], algorithm: Algorithm, layout: Layout) -> None:
    """Check that there is an optimizer, of the module's parameters, without moments where the recipe has some.

    Raises:
        InputError: there is none; it takes several gradients a step, or trains what is not the module's; a recipe with
            moments under another one than SGD without momentum.
    """
    optimizer = optimizers[0]
    if isinstance(optimizer, _MockOptimizer):
        raise InputError("configure_optimizers: returned None; one optimizer is needed")
    if isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.LBFGS):
        raise InputError("configure_optimizers: LBFGS; its steps take several gradients, one that takes one is needed")
    known = set(map(id, layout.parameters))
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        if p.requires_grad and p.numel() and id(p) not in known:
            raise InputError(
                f"configure_optimizers: trains a parameter of shape {tuple(p.shape)} that the module does not have; "
                "one of module.named_parameters() is needed, such as self.name = nn.Parameter(…) adds"
            )
    if algorithm.moments is not None:
        algorithm.moments.refuse(optimizer, "configure_optimizers", algorithm.name)


def refuse_schedulers(schedulers: list[LRSchedulerConfig]) -> None:
    """Check that local steps can step the schedulers that count steps.

    Raises:
        InputError: one is stepped every n steps, n > 1.
    """
    for config in schedulers:
        if config.interval == "step" and config.frequency != 1:
            raise InputError(f"frequency: {config.frequency}; schedulers follow every local step, 1 is needed")


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.type != "cpu"
