"""Engines, which compute the gradients of the workers in this process."""

from bench.gradients.engines.base import Engine, RowGradients, WorkerGradients
from bench.gradients.engines.choice import ENGINES, EngineName, FallingBack, Trial, make_engine
from bench.gradients.engines.joint import JointEngine
from bench.gradients.engines.loop import LoopEngine
from bench.gradients.engines.vmap import VmapEngine

__all__ = [
    "ENGINES",
    "Engine",
    "EngineName",
    "FallingBack",
    "JointEngine",
    "LoopEngine",
    "RowGradients",
    "Trial",
    "VmapEngine",
    "WorkerGradients",
    "make_engine",
]
