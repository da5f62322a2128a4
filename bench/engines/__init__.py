"""Engines: how the gradients of the workers in this process are computed."""

from bench.engines.base import Engine, RowGradients, WorkerGradients
from bench.engines.choice import ENGINES, EngineName, FallingBack, Trial, make_engine
from bench.engines.joint import JointEngine
from bench.engines.loop import LoopEngine
from bench.engines.vmap import VmapEngine

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
