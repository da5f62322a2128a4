"""What is tuned: the knobs of an experiment's arms, and the steps in which their trials grow longer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import InputError

SCALES = ("log", "linear")
KEYS = ("held_out", "knobs", "arms", "shares")
MOST_OWN = 2  # knobs of an arm besides those of all


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
    def of(cls, key: str, given: Any) -> "Knob":
        """The knob that a config describes.

        Raises:
            InputError: bounds or scale are missing or impossible.
        """
        if not isinstance(given, Mapping) or set(given) != {"low", "high", "scale"}:
            raise InputError(f"tune: {key}: {given}; low, high and scale are needed")
        if given["scale"] not in SCALES:
            raise InputError(f"tune: {key}: scale: {given['scale']!r}; one of {', '.join(SCALES)} is needed")
        low, high = given["low"], given["high"]
        if not (isinstance(low, int | float) and isinstance(high, int | float) and low < high):
            raise InputError(f"tune: {key}: {low} to {high}; low below high is needed")
        if given["scale"] == "log" and low <= 0:
            raise InputError(f"tune: {key}: low: {low}; above 0 is needed on a log scale")
        return cls(key, float(low), float(high), given["scale"])


@dataclass(frozen=True)
class Tuning:
    """The `tune` of an experiment.

    Attributes:
        held_out: the override with which runs evaluate on training data that are held out.
        knobs: by arm.
        shares: of a run's full length, growing to 1: after each, the better half of the trials goes on; to 1, two.
    """

    held_out: str
    knobs: dict[str, list[Knob]]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, cfg: DictConfig) -> "Tuning":
        """What an experiment's config says.

        Raises:
            InputError: it says nothing; a knob without range or scale, or of an arm that is not there; tuning on test
                data; lengths that do not grow to 1.
        """
        given: Any = OmegaConf.to_container(cfg.tune) if cfg.get("tune") else None
        if not given:
            raise InputError(f"tune: None; {cfg.name} declares no knobs, ranges and scales")
        if unknown := set(given) - set(KEYS):
            raise InputError(f"tune: {', '.join(sorted(unknown))}; nothing reads it, there is {', '.join(KEYS)}")
        arms = list(cfg.matrix.get("arms") or {})
        shared, own = given.get("knobs") or {}, given.get("arms") or {}
        for arm, knobs in own.items():
            if arm not in arms:
                raise InputError(f"tune.arms: {arm!r}; one of {', '.join(arms)} is needed")
            if len(knobs or {}) > MOST_OWN:
                raise InputError(f"tune.arms.{arm}: {len(knobs)} knobs; at most {MOST_OWN} besides those of all")
        if not arms:
            raise InputError(f"matrix.arms: none; tune.py tunes the arms of {cfg.name}")
        if "num_held_out=" not in (held_out := str(given.get("held_out"))) or held_out.endswith("=0"):
            raise InputError(
                f"tune.held_out: {held_out}; nothing is tuned on test data, such as ++data.num_held_out=1000 is needed"
            )
        shares = tuple(given.get("shares") or (0.25, 0.5, 1))
        if shares[-1] != 1 or any(not 0 < a < b for a, b in pairwise(shares)):
            raise InputError(f"tune.shares: {list(shares)}; fractions that grow to 1 are needed")
        by_arm = {arm: {**shared, **(own.get(arm) or {})} for arm in arms}
        for arm, ranges in by_arm.items():
            if not ranges:
                raise InputError(f"tune.knobs: none for {arm}; one at least is needed, such as optimizer.lr")
        knobs = {arm: [Knob.of(key, one) for key, one in ranges.items()] for arm, ranges in by_arm.items()}
        return cls(held_out, knobs, shares)

    def told(self, arm: str, config: Mapping[str, Any]) -> str:
        """What a study is about, to recognise it.

        Args:
            arm: whose study it is.
            config: everything else that the results of its runs depend on.
        """
        knobs = [vars(knob) for knob in self.knobs[arm]]
        return json.dumps({"config": config, "knobs": knobs, "shares": self.shares, "held_out": self.held_out})


def survivors(num_trials: int, num_steps: int) -> list[int]:
    """How many trials run at each of the lengths: all, halves of them, two at last."""
    numbers = [max(2, num_trials >> step) for step in range(num_steps)]
    numbers[-1] = min(2, num_trials)
    return [min(number, num_trials) for number in numbers]
