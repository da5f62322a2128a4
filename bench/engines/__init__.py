"""Engines: how the gradients of the workers in this process are computed."""

from collections.abc import Sequence
from typing import Any, Literal

import lightning
import torch

from bench.engines.base import Engine, Noise, Step, WorkerGradients
from bench.engines.linear import LinearEngine
from bench.engines.loop import LoopEngine
from bench.layout import Layout

EngineName = Literal["auto", "loop", "linear"]

__all__ = ["Engine", "EngineName", "LinearEngine", "LoopEngine", "WorkerGradients", "choose_engine"]


def choose_engine(
    name: EngineName, module: lightning.LightningModule, layout: Layout, step: Step, batch: Any, noise: Sequence[Noise]
) -> Engine:
    """The named engine, or with "auto" the fastest one whose gradients on this batch equal the loop's."""
    loop, linear = LoopEngine(module, layout), LinearEngine(module, layout)
    if name != "auto":
        return loop if name == "loop" else linear
    if not LinearEngine.fits(module, layout):
        return loop
    rows = torch.arange(len(noise))
    try:
        tried = linear.gradients(step, batch, noise).dense(rows)
    except Exception:  # whatever a user's step does that vmap cannot: the loop can, or shows the true error
        return loop
    reference = loop.gradients(step, batch, noise).dense(rows)
    tolerance = 1e-5 * float(reference.abs().max())
    return linear if torch.allclose(tried, reference, rtol=1e-4, atol=tolerance, equal_nan=True) else loop
