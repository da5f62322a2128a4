"""What may be tuned: settings with ranges and scales. A recipe declares its own in its yaml; no run depends on them.

knobs:
  optimizer.lr: {low: 1e-5, high: 1e-2, scale: log} # in place of the experiment's range
  compressor.share: {low: 0.005, high: 0.1, scale: log} # a setting of the recipe
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from bench.configured import get_object
from bench.errors import InputError

SCALES = ("log", "linear")
RATE = "optimizer.lr"
MOST_OWN = 2  # knobs besides the learning rate and those that all share


@dataclass(frozen=True)
class Knob:
    """A setting and its range.

    Args:
        key: the override's.
        low, high: the bounds, both possible.
        scale: "log" or "linear".
    """

    key: str
    low: float
    high: float
    scale: str

    @classmethod
    def of(cls, key: str, given: Any, where: str) -> "Knob":
        """The knob that a config describes.

        Args:
            key: the override's.
            given: its range and scale.
            where: the config says so, for error messages.

        Raises:
            InputError: bounds or scale are missing or impossible.
        """
        if not isinstance(given, Mapping) or set(given) != {"low", "high", "scale"}:
            raise InputError(f"{where}: {key}: {given}; low, high and scale are needed")
        if given["scale"] not in SCALES:
            raise InputError(f"{where}: {key}: scale: {given['scale']!r}; one of {', '.join(SCALES)} is needed")
        low, high = given["low"], given["high"]
        if not (is_number(low) and is_number(high) and -math.inf < low < high < math.inf):
            raise InputError(f"{where}: {key}: {low} to {high}; finite numbers, low below high, are needed")
        if given["scale"] == "log" and low <= 0:
            raise InputError(f"{where}: {key}: low: {low}; above 0 is needed on a log scale")
        return cls(key, float(low), float(high), given["scale"])


def declared(recipe: Mapping[str, Any], where: str) -> dict[str, Knob]:
    """The knobs that a recipe's config declares, by the keys of overrides.

    Args:
        recipe: the config, resolved.
        where: it is, for error messages.

    Raises:
        InputError: no knobs by name; one that is neither a float of the recipe nor the learning rate, or without range
            or scale; too many.
    """
    if (given := recipe.get("knobs")) is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: knobs: {given!r}; ranges by the names of settings are needed")
    found = dict[str, Knob]()
    for name, spread in given.items():
        setting = None if name == RATE else _setting(recipe, str(name))
        if name != RATE and not (is_number(setting) and _is_declared_float(recipe, str(name))):
            told = f"{name}: {setting}, a whole number" if is_number(setting) else name
            raise InputError(f"{where}: knobs: {told}; a float among the recipe's settings is needed, or {RATE}")
        key = name if name == RATE else f"algorithm.{name}"
        found[key] = Knob.of(key, spread, f"{where}: knobs")
    refuse_many(found.keys() - {RATE}, f"{where}: knobs")
    return found


def refuse_many(own: Any, where: str) -> None:
    """Raise InputError if these are more knobs than a method may have of its own: they would be tuned worse."""
    if len(own) > MOST_OWN:
        raise InputError(f"{where}: {', '.join(sorted(own))}; at most {MOST_OWN} besides {RATE} and those of all")


def _setting(tree: Any, name: str) -> Any:
    """What a dotted name leads to; None if to nothing."""
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _is_declared_float(recipe: Mapping[str, Any], name: str) -> bool:
    """Whether the part that a setting belongs to takes a float there, which a config may also write as 1."""
    owner, _, field = name.rpartition(".")
    part = _setting(recipe, owner) if owner else recipe
    if "_target_" not in part:
        return isinstance(part[field], float)
    return get_type_hints(get_object(part["_target_"]).__init__).get(field) is float


def is_number(given: Any) -> bool:
    """Whether a config gives a number; true and false, which Python counts among them, are none."""
    return isinstance(given, int | float) and not isinstance(given, bool)
