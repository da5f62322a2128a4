"""Checks that all processes agree, made before one waits for data that another never sends."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from bench.collectives.world import World
from bench.errors import InputError


@contextlib.contextmanager
def refused_together(world: World) -> Iterator[None]:
    """If one process fails inside, end all with its reason. All processes must enter.

    Raises:
        InputError: another process failed.
    """
    trouble = None
    try:
        yield
    except Exception as error:
        trouble = error
    told = world.gather(None if trouble is None else " ".join(str(trouble).split()))
    if trouble is not None:
        raise trouble
    for rank, reason in enumerate(told):
        if reason is not None:
            raise InputError(f"rank {rank}: {reason}")


def agree(world: World, facts: Mapping[str, Any]) -> None:
    """Check that all processes have the same facts. All processes must call it.

    Raises:
        InputError: a process's facts differ from rank 0's; the message names the rank and the fact.
    """
    first, *others = world.gather(dict(facts))
    for rank, theirs in enumerate(others, start=1):
        for name in {**first, **theirs}:
            here, there = theirs.get(name, "none"), first.get(name, "none")
            if here != there:
                raise InputError(f"{name}: rank {rank} has {here}; rank 0 has {there}, all need the same")


def described(module: nn.Module) -> dict[str, str]:
    """Every parameter and buffer of a module by name: its shape, dtype, and whether it is trained."""
    tensors = {f"parameter {name}": p for name, p in module.named_parameters()}
    tensors |= {f"buffer {name}": buffer for name, buffer in module.named_buffers()}
    return {
        name: f"{tuple(t.shape)} {t.dtype}{'' if t.requires_grad else ' fixed'}".replace("torch.", "")
        for name, t in tensors.items()
    }
