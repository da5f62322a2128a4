"""Reads quantities with units: 10Gbit, 50us, 350ms."""

import math
import re

from bench.errors import InputError

PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BITS = dict.fromkeys(("bit", "bits", "bit/s", "bps", "b/s"), 1) | dict.fromkeys(
    ("Byte", "Byte/s", "B", "B/s", "Bps"), 8
)
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0}
RATES = {prefix + unit: scale * size for prefix, scale in PREFIXES.items() for unit, size in BITS.items()}
_QUANTITY = re.compile(r"\s*([-+]?[\d.,]*(?:[eE][-+]?\d+)?)\s*([^\d\s]*)\s*")


def bandwidth_bps(name: str, given: str, bare: float | None = None) -> float:
    """A bandwidth in bits per second.

    Args:
        name: of the field, for error messages.
        given: such as "10Gbit", "1.25GB/s" or "100 Mbps".
        bare: the bits per second that a number without a unit counts; None if it needs one.

    Raises:
        InputError: no number above 0, or not in such a unit.
    """
    return _read(name, given, RATES, bare, "10Gbit or 1.25GB/s", least=math.nextafter(0, 1))


def seconds(name: str, given: str, bare: float | None = None) -> float:
    """A time in seconds, at least 0. `bare`: the seconds that a number without a unit counts; None if it needs one.

    Raises:
        InputError: no number of at least 0, or not in such a unit.
    """
    return _read(name, given, SECONDS, bare, "50us or 350ms", least=0.0)


def _read(name: str, given: str, units: dict[str, float], bare: float | None, such_as: str, least: float) -> float:
    found = _QUANTITY.fullmatch(given)
    try:
        assert found is not None
        number = float(found[1])
    except (AssertionError, ValueError):
        raise InputError(f"{name}: {given!r}; a number with a unit is needed, such as {such_as}") from None
    unit = found[2]
    if not unit and bare is None and number:
        raise InputError(f"{name}: {given!r}; a unit is needed, such as {such_as}")
    if unit and unit not in units:
        raise InputError(f"{name}: {given!r}; the unit {unit!r} is unknown, use one such as {such_as}")
    value = number * (units[unit] if unit else bare or 1.0)
    if not least <= value < math.inf:
        raise InputError(f"{name}: {given!r}; {'above' if least else 'at least'} 0 is needed")
    return value
