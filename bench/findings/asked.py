"""Makes the figure or table that an experiment's file asks for under `figure:` or `table:`, or rejects the request."""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any, TypeVar

from bench.errors import InputError

T = TypeVar("T")


def made(field: str, asked: Mapping[str, Any], kinds: Mapping[str, Callable[..., T]], subject: Any) -> T:
    """Call the function in `kinds` that `asked["kind"]` names, on the subject, with the other options as keywords.

    Raises:
        InputError: the kind or an option is unknown, an option is missing, or the runs lack a column or setting.
    """
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
    try:
        return kinds[kind](subject, **options)
    except KeyError as error:
        raise InputError(f"{field}: {error}; a column or a setting that all of these runs have is needed") from error
