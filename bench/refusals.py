"""What a compressed strategy cannot do with a Trainer, told before training starts."""

import lightning
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.plugins.precision import Precision

from bench.errors import InputError


def refuse_fit(trainer: lightning.Trainer, module: lightning.LightningModule, precision: Precision) -> None:
    """Make sure that every batch is a round, stepped by the strategy in a precision that the device has.

    Raises:
        InputError: manual optimisation, accumulated gradients, scaled losses, a half precision that is emulated.
    """
    if not module.automatic_optimization:
        raise InputError("automatic_optimization: False; a compressed strategy steps the optimizer itself")
    accumulated = {trainer.accumulate_grad_batches} | {
        number
        for callback in trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, GradientAccumulationScheduler)
        for number in callback.scheduling.values()
    }
    if accumulated != {1}:
        raise InputError(f"accumulate_grad_batches: {max(accumulated)}; 1 is needed, use larger batches")
    if getattr(precision, "scaler", None) is not None:
        raise InputError("precision: 16-mixed scales the loss; 32-true or bf16-mixed is needed")
    device, given = trainer.strategy.root_device, precision.precision
    if "bf16" in str(given) and not _has_bfloat16(device):
        raise InputError(f"precision: {given}; {device} does not compute in it, 32-true is needed")


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.type != "cpu"
