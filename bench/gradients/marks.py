"""Values of tensors: detecting writes and new ones, copying, averaging, comparing."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Row = Tensor | None  # a buffer may be None until a step creates it
NUM_SAMPLED = 256
"""Entries of a larger tensor that are compared, to detect writes that leave its version counter unchanged."""


class Mark(NamedTuple):
    """A tensor's state when it was last inspected."""

    tensor: Row
    version: int
    sample: Row

    @classmethod
    def of(cls, tensor: Row) -> "Mark":
        return cls(tensor, -1 if tensor is None else tensor._version, sample(tensor, copied=True))

    def differs(self, tensor: Row, may_wait: bool = False) -> bool:
        """Whether the tensor has been reassigned or written since, including through `.data` and the like.

        Args:
            tensor: its current value.
            may_wait: whether to compare entries on an accelerator, too, which waits for it.
        """
        if tensor is not self.tensor or (tensor is not None and tensor._version != self.version):
            return True
        looks = may_wait or tensor is None or tensor.device.type == "cpu"
        return looks and not equal(sample(tensor), self.sample)


def registrations(module: nn.Module) -> list[tuple[int, int, int]]:
    """A value that changes when tensors are registered or modules replaced."""
    return [(id(m), len(m._buffers), len(m._parameters)) for m in module.modules()]


def mean(rows: Sequence[Row]) -> Row:
    """One value for several workers' rows: their mean; for integers, or where shapes differ, the first row."""
    first = rows[0]
    if first is None or not (first.is_floating_point() or first.is_complex()):
        return first
    if all(equal(row, first) for row in rows[1:]):
        return first
    if any(row is None or row.shape != first.shape for row in rows):
        return first
    if first.layout is not torch.strided:
        return sum(rows[1:], first) / len(rows)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return torch.stack([row.to(first.device) for row in rows if row is not None]).mean(dim=0)


def clone(tensor: Row) -> Row:
    """A detached copy."""
    return None if tensor is None else tensor.detach().clone()


def sample(tensor: Row, copied: bool = False) -> Row:
    """Some entries, to detect writes that leave the version counter unchanged."""
    if tensor is None or tensor.layout is not torch.strided or not tensor.numel():
        return None
    flat = tensor.detach()
    if tensor.numel() > NUM_SAMPLED:
        step = tensor.numel() // NUM_SAMPLED
        if not flat.is_contiguous():  # flattened, it would be copied
            picked = torch.arange(0, tensor.numel(), step, device=tensor.device)
            return flat[torch.unravel_index(picked, tensor.shape)]
        flat = flat.reshape(-1)[::step]
    return flat.clone() if copied else flat


def equal(a: Row, b: Row) -> bool:
    """Whether two rows have the same entries; NaN equals NaN."""
    if a is None or b is None:
        return a is b
    if (a.shape, a.dtype, a.layout) != (b.shape, b.dtype, b.layout):
        return False
    if a.layout is not torch.strided:
        a, b = (t.coalesce() if t.layout is torch.sparse_coo else t.to_sparse_coo() for t in (a, b))
        return torch.equal(a.indices(), b.indices()) and torch.equal(a.values(), b.values())
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
