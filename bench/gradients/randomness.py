"""Random numbers for workers' steps, seeded per worker and round; the user's generators are not disturbed."""

import contextlib
import ctypes
import random
from collections.abc import Iterator

import numpy as np
import torch

from bench.kernels.noise import Noise

_scopes: list[contextlib.ExitStack] = []
_STATE_BYTES = 2500  # state of NumPy's Mersenne Twister: 624 words and a position


@contextlib.contextmanager
def lent(device: torch.device) -> Iterator[None]:
    """Restore the global generators of PyTorch, NumPy and `random` on exit; inside `lent_once`, on its exit."""
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
    """Restore whatever is lent inside once, on exit of this block, since copying generator states is slow."""
    with contextlib.ExitStack() as scope:
        _scopes.append(scope)
        try:
            yield
        finally:
            _scopes.pop()


@contextlib.contextmanager
def _lent(device: torch.device) -> Iterator[None]:
    state, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002  steps draw from the global one
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpys)  # noqa: NPY002


def seed(noise: Noise, device: torch.device) -> None:
    """Seed the global generators so that a worker's step draws the same in every world. Call inside `lent`."""
    drawn = noise.entropy("step")
    # As `torch.manual_seed`, which would also format the call stack for each accelerator that is absent.
    (torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed)(drawn)
    np.random.seed(drawn)  # noqa: NPY002
    random.seed(drawn)


class Drawing:
    """Detects draws from NumPy's or Python's generators since it was made, and can rewind them."""

    def __init__(self) -> None:
        self.state = random.getstate()
        generator = np.random.get_bit_generator()  # pyright: ignore[reportAttributeAccessIssue]
        self.is_twister = isinstance(generator, np.random.MT19937)
        self.address = generator.ctypes.state_address if self.is_twister else 0
        self.numpys = ctypes.string_at(self.address, _STATE_BYTES) if self.is_twister else b""

    def happened(self) -> bool:
        """Whether anything was drawn since."""
        numpys = ctypes.string_at(self.address, _STATE_BYTES) if self.is_twister else b""
        return numpys != self.numpys or random.getstate() != self.state

    def take_back(self) -> None:
        """Rewind both generators, so that they draw the same numbers again."""
        random.setstate(self.state)
        if self.is_twister:
            words = np.frombuffer(self.numpys, np.uint32)
            np.random.set_state(("MT19937", words[:624], int(words[624]), 0, 0.0))  # noqa: NPY002
