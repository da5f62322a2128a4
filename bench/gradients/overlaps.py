"""Memory that trainable parameters share with other tensors, which moving them to one vector would tear apart."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bench.errors import InputError

Span = tuple[int, int, str]  # the addresses from and to, and the name


def refuse_overlaps(module: nn.Module) -> None:
    """Check that no parameter or buffer lies in the memory of another trainable parameter.

    Raises:
        InputError: one does; the message names both.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    spans = sorted(_span(name, tensor) for name, tensor in tensors if _has_memory(tensor))
    furthest = 0, ""  # where a trainable parameter ends
    last = 0, ""  # where any tensor ends
    for start, end, name in spans:
        reaching, other = last if name in trained else furthest
        if start < reaching:
            raise InputError(
                f"{name}: in the memory of {other}; one parameter under two names is needed to tie them, or a copy"
            )
        last = max(last, (end, name))
        if name in trained:
            furthest = max(furthest, (end, name))


def _has_memory(tensor: Tensor) -> bool:
    return (
        not is_lazy(tensor)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_meta
        and tensor.numel() > 0
    )


def _span(name: str, tensor: Tensor) -> Span:
    extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    start = tensor.data_ptr()
    return start, start + extent * tensor.itemsize, name
