"""What a module trains: settled when training starts, and read by steps, not written."""

import contextlib
from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.gradients.layout import Layout
from bench.gradients.marks import equal, registrations


class Trained:
    """The parameters that a module trains, which are fixed when training starts, and which steps only read.

    Args:
        module: to train.
        layout: of its parameters.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self._module = module
        self._layout = layout
        self._known = set(map(id, layout.parameters))
        starts = torch.tensor([0, *accumulate(layout.sizes)][:-1])
        self._middles = starts + torch.tensor(layout.sizes) // 2
        self._registrations = registrations(module)
        self._owners = [(m, key, p) for m in module.modules() for key, p in m._parameters.items()]
        self._flags = [(name, p, p.requires_grad) for name, p in module.named_parameters()]

    def refuse_changes(self) -> None:
        """Raise InputError if a parameter was replaced, frozen or unfrozen since, or given another shape, dtype or
        device."""
        self._layout.bind_again()
        if any(getattr(owner, key, None) is not p for owner, key, p in self._owners):
            present = set(map(id, self._module.parameters()))
            for name, p in zip(self._layout.names, self._layout.parameters, strict=True):
                if id(p) not in present:
                    raise InputError(
                        f"parameters: {name} was replaced during training; what is trained is settled when it starts"
                    )
        for name, parameter, was in self._flags:
            if parameter.requires_grad != was:
                became = f"{parameter.requires_grad} during training; what is trained is settled when it starts"
                raise InputError(f"requires_grad: {name} became {became}")

    @contextlib.contextmanager
    def only_read(self, thorough: bool) -> Iterator[None]:
        """Around one worker's step.

        Args:
            thorough: whether to compare all entries, not one of each tensor, which finds writes through `.data`.

        Raises:
            InputError: the step wrote a trained parameter, which all workers share.
        """
        layout = self._layout
        before, held = self._versions(), self._entries(thorough)
        yield
        if (after := self._versions()) != before or not equal(held, self._entries(thorough)):
            written = [name for name, old, new in zip(layout.names, before, after, strict=True) if new != old]
            raise InputError(
                f"training_step: writes {', '.join(written) or 'parameters'}; all workers share it, "
                "on_train_batch_start or on_train_batch_end is called once a round"
            )

    def _entries(self, thorough: bool) -> Tensor | None:
        """A copy of all entries, or of one of each tensor; None where comparing these would make an accelerator wait in
        every round."""
        vector = self._layout.vector
        if thorough:
            return vector.clone()
        return vector[self._middles] if vector.device.type == "cpu" else None

    def _versions(self) -> list[tuple[int, int]]:
        return [(p._version, p.data_ptr()) for p in self._layout.parameters]

    def refuse_newcomers(self) -> None:
        """Raise InputError if a trainable parameter was added since."""
        if (now := registrations(self._module)) == self._registrations:
            return
        self._registrations = now
        for name, p in self._module.named_parameters():
            if p.requires_grad and p.numel() and id(p) not in self._known:
                raise InputError(
                    f"parameters: {name} was added during training; what is trained is settled when it starts"
                )
