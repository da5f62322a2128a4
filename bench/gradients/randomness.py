"""What a worker's step draws: random numbers of its own, while the user's go on undisturbed."""

import contextlib
import ctypes
import random
from collections.abc import Iterator

import numpy as np
import torch

from bench.kernels.noise import Noise

_scopes: list[contextlib.ExitStack] = []
_STATE_BYTES = 2500  # of NumPy's Mersenne twister: 624 words and a position


@contextlib.contextmanager
def lent(device: torch.device) -> Iterator[None]:
    """Put what PyTorch, NumPy and `random` would draw next back at the end; inside `lent_once` at its end."""
    if not _scopes:
        with _lent(device):
            yield
        return
    if not vars(_scopes[-1]).setdefault("has_lent", False):
        _scopes[-1].enter_context(_lent(device))
        vars(_scopes[-1])["has_lent"] = True
    yield


@contextlib.contextmanager
def lent_once() -> Iterator[None]:
    """Whatever is lent inside is put back at the end, and not in between: to copy states takes long."""
    with contextlib.ExitStack() as scope:
        _scopes.append(scope)
        try:
            yield
        finally:
            _scopes.pop()


@contextlib.contextmanager
def _lent(device: torch.device) -> Iterator[None]:
    state, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002  the global one is what steps draw from
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpys)  # noqa: NPY002


def seed(noise: Noise, device: torch.device) -> None:
    """Let a worker's step draw what it draws in every world. Inside `lent`."""
    drawn = noise.entropy("step")
    # As `torch.manual_seed`, but that also writes out the call stack for each accelerator that is not there.
    (torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed)(drawn)
    np.random.seed(drawn)  # noqa: NPY002
    random.seed(drawn)


class Drawing:
    """Tells whether something was drawn from NumPy's or Python's generators since, and can take it back."""

    def __init__(self) -> None:
        self.state = random.getstate()
        generator = np.random.get_bit_generator()  # pyright: ignore[reportAttributeAccessIssue]
        self.is_twister = isinstance(generator, np.random.MT19937)
        self.address = generator.ctypes.state_address if self.is_twister else 0
        self.numpys = ctypes.string_at(self.address, _STATE_BYTES) if self.is_twister else b""

    def happened(self) -> bool:
        """Whether anything was drawn."""
        numpys = ctypes.string_at(self.address, _STATE_BYTES) if self.is_twister else b""
        return numpys != self.numpys or random.getstate() != self.state

    def take_back(self) -> None:
        """Let the same numbers be drawn again."""
        random.setstate(self.state)
        if self.is_twister:
            words = np.frombuffer(self.numpys, np.uint32)
            np.random.set_state(("MT19937", words[:624], int(words[624]), 0, 0.0))  # noqa: NPY002
