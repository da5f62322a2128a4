"""Checks that what a caller gave is of the declared type."""

from types import NoneType
from typing import Any, get_args

from bench.errors import InputError


def refuse_kind(name: str, given: Any, hint: Any) -> None:
    """Check a value against a class or a union of classes. A float may be given as an integer; other types are not
    looked at.

    Args:
        name: of the argument, for the error message.
        given: its value.
        hint: its declared type.

    Raises:
        InputError: it is of another type.
    """
    kinds = get_args(hint) or (hint,)
    if not all(isinstance(kind, type) for kind in kinds):
        return
    is_number = isinstance(given, int) and not isinstance(given, bool) and float in kinds
    if is_number or (isinstance(given, kinds) and not (isinstance(given, bool) and bool not in kinds)):
        return
    wanted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
    raise InputError(f"{name}: {given!r}; {wanted} is needed")
