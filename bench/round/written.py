"""Comparison of a run's parts with those that a checkpoint was written with."""

import ast
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from bench.errors import InputError


def refuse_other(name: str, part: object, written: str) -> None:
    """Check that a checkpoint was written with this part of a run. Fields that it does not name have their default.

    Args:
        name: of the part, such as "algorithm".
        part: the current one.
        written: the `repr` of the one in the checkpoint.

    Raises:
        InputError: another part, or one with other settings; the message names the first field that differs.
    """
    try:
        then = ast.parse(written, mode="eval").body
    except SyntaxError:  # a part whose `repr` is no expression has no fields to compare
        then = None
    differing = _difference(part, then) if then else None if repr(part) == written else ("", repr(part), written)
    if differing is not None:
        field, now, before = differing
        raise InputError(f"{name}{field}: {now}; the checkpoint holds {before}")


def _difference(part: Any, then: ast.expr) -> tuple[str, str, str] | None:
    """The first field in which a part differs from the written one, with its values now and then; None if none does."""
    is_same_kind = isinstance(then, ast.Call) and ast.unparse(then.func) == type(part).__qualname__
    if not (is_dataclass(part) and is_same_kind):
        return None if _normal(repr(part)) == (before := ast.unparse(then)) else ("", repr(part), before)
    assert isinstance(then, ast.Call)
    written = {keyword.arg: keyword.value for keyword in then.keywords}
    for field in fields(part):
        now, before = getattr(part, field.name), written.pop(field.name, None)
        if before is None:
            if now != (default := _default(field)):
                return f".{field.name}", repr(now), "no such field" if default is MISSING else repr(default)
        elif (differing := _difference(now, before)) is not None:
            inner, ours, theirs = differing
            return f".{field.name}{inner}", ours, theirs
    for name, before in written.items():
        return f".{name}", "no such field", ast.unparse(before)
    return None


def _default(field: Field) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _normal(expression: str) -> str:
    """The source text of a value, in normalised spelling."""
    try:
        return ast.unparse(ast.parse(expression, mode="eval"))
    except SyntaxError:
        return expression
