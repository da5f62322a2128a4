"""Makes the figure or table that an experiment's file asks for under `figure:` or `table:`, or rejects the request."""

import math
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from itertools import pairwise
from typing import Any, TypeVar

from bench.errors import InputError
from bench.knobs import is_number

T = TypeVar("T")


def refuse_falling(field: str, given: Any) -> None:
    """Raise InputError unless what is given is a list of numbers above 0 that rise."""
    listed = given if isinstance(given, Sequence) else []
    numbers = [one for one in listed if is_number(one)]
    rises = all(low < high < math.inf for low, high in pairwise([0, *numbers]))
    if not numbers or not rises or len(numbers) != len(given):
        raise InputError(f"{field}: {given}; a list of numbers above 0 that rise is needed")


def refuse(field: str, asked: Mapping[str, Any], kinds: Mapping[str, Callable[..., Any]]) -> None:
    """Raise InputError if the kind or an option is unknown, or an option is missing."""
    options = dict(asked)
    if (kind := options.pop("kind", None)) not in kinds:
        raise InputError(f"{field}.kind: {kind!r}; one of {', '.join(kinds)} is needed")
    _, *parameters = signature(kinds[kind]).parameters.values()
    names = [parameter.name for parameter in parameters]
    for name in options.keys() - set(names):
        raise InputError(f"{field}.{name}: {options[name]!r}; {kind} takes {', '.join(names)}")
    for parameter in parameters:
        if parameter.default is Parameter.empty and parameter.name not in options:
            raise InputError(f"{field}.{parameter.name}: not given; {kind} needs it")


def made(field: str, asked: Mapping[str, Any], kinds: Mapping[str, Callable[..., T]], subject: Any) -> T:
    """Call the function in `kinds` that `asked["kind"]` names, on the subject, with the other options as keywords.

    Raises:
        InputError: the kind or an option is unknown, an option is missing, or the runs lack a column or setting.
    """
    refuse(field, asked, kinds)
    options = dict(asked)
    try:
        return kinds[options.pop("kind")](subject, **options)
    except KeyError as error:
        raise InputError(f"{field}: {error}; a column or a setting that all of these runs have is needed") from error
