"""What is tuned: the knobs of an experiment's arms, and the steps in which their trials grow longer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import InputError
from bench.knobs import RATE, Knob, declared, refuse_many

KEYS = ("held_out", "knobs", "arms", "shares")


@dataclass(frozen=True)
class Tuning:
    """The `tune` of an experiment.

    Attributes:
        held_out: the override with which runs evaluate on training data that are held out.
        shares: of a run's full length, growing to 1: after each, the better half of the trials goes on; to 1, two.
        shared: the knobs of all arms, by key.
        own: by arm: knobs of its own by key, or None for one that is left as it is.
        arms: what each arm sets.
    """

    held_out: str
    shares: tuple[float, ...]
    shared: Mapping[str, Knob]
    own: Mapping[str, Mapping[str, Knob | None]]
    arms: Mapping[str, Mapping[str, Any]]

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
        arms = {
            str(arm): {str(key).lstrip("+"): value for key, value in sets.items()}
            for arm, sets in (cfg.matrix.get("arms") or {}).items()
            if sets is not None
        }
        shared, own = given.get("knobs") or {}, given.get("arms") or {}
        for arm in own.keys() - arms.keys():
            raise InputError(f"tune.arms: {arm!r}; one of {', '.join(arms)} is needed")
        if not arms:
            raise InputError(f"matrix.arms: none; tune.py tunes the arms of {cfg.name}")
        if "num_held_out=" not in (held_out := str(given.get("held_out"))) or held_out.endswith("=0"):
            raise InputError(
                f"tune.held_out: {held_out}; nothing is tuned on test data, such as ++data.num_held_out=1000 is needed"
            )
        shares = tuple(given.get("shares") or (0.25, 0.5, 1))
        if shares[-1] != 1 or any(not 0 < a < b for a, b in pairwise(shares)):
            raise InputError(f"tune.shares: {list(shares)}; fractions that grow to 1 are needed")
        return cls(
            held_out,
            shares,
            {key: Knob.of(key, one, "tune") for key, one in shared.items()},
            {
                arm: {
                    key: one if one is None else Knob.of(key, one, f"tune.arms.{arm}")
                    for key, one in (knobs or {}).items()
                }
                for arm, knobs in own.items()
            },
            arms,
        )

    def knobs(self, arm: str, recipe: Mapping[str, Any]) -> list[Knob]:
        """The knobs of an arm: those of all, those that its recipe declares, but for what the arm sets itself, and
        those that the experiment gives it; of one setting, the last of these.

        Args:
            arm: its name.
            recipe: the config of its recipe, resolved.

        Raises:
            InputError: there is none, or too many; a wrong one in the recipe.
        """
        general = {**self.shared, **declared(recipe, f"matrix.arms.{arm}: algorithm")}
        left = {key: knob for key, knob in general.items() if key not in self.arms[arm]}
        knobs = [knob for knob in {**left, **self.own.get(arm, {})}.values() if knob is not None]
        refuse_many({knob.key for knob in knobs} - self.shared.keys() - {RATE}, f"tune.arms.{arm}")
        if not knobs:
            raise InputError(f"tune.knobs: none for {arm}; one at least is needed, such as optimizer.lr")
        return knobs

    def told(self, knobs: Sequence[Knob], config: Mapping[str, Any]) -> str:
        """What the study of an arm is about, to recognise it.

        Args:
            knobs: of the arm.
            config: everything else that the results of its runs depend on.
        """
        described = [vars(knob) for knob in knobs]
        return json.dumps({"config": config, "knobs": described, "shares": self.shares, "held_out": self.held_out})


def survivors(num_trials: int, num_steps: int) -> list[int]:
    """How many trials run at each of the lengths: all, halves of them, two at last."""
    numbers = [max(2, num_trials >> step) for step in range(num_steps)]
    numbers[-1] = min(2, num_trials)
    return [min(number, num_trials) for number in numbers]
