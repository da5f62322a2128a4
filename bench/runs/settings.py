"""Checks of a config before anything is computed: something reads every key, and values have the right types."""

import collections.abc
import inspect
import json
import math
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from bench.configured import get_object
from bench.errors import InputError
from bench.gradients.engines import EngineName
from bench.strategies.hooks import Compressed

Group = dict[str, Any]
WORDS = {"needs_python_object": "a part with its _target_", "missing": "another entry"}
"""Texts for those errors of pydantic's whose messages refer to its internals."""

ABOVE_0 = (
    "max_epochs",
    "max_steps",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "gradient_clip_val",
)
"""Arguments of the Trainer that are left out or above 0."""

BOUNDS = {"seed": (0, 2**32 - 1), "workers": (1, 10**6), "threads": (1, 1024), "autosave_minutes": (0, 10**6)}


@dataclass
class Target:
    """Where a run's costs are reported: the first evaluation whose metric is better than the value."""

    metric: str
    value: float


@dataclass
class Settings:
    """The keys of configs/train.yaml; groups are checked against what they instantiate."""

    algorithm: Group
    data: Group
    model: Group
    optimizer: Group
    link: Group
    trainer: Group
    logger: Group
    name: str | int
    label: str | int | float
    seed: int
    workers: int
    threads: int
    engine: EngineName
    target: Group
    autosave_minutes: float
    wandb_mode: Literal["offline", "online"]
    matrix: Group
    jobs: int | None
    launcher: str
    data_dir: str
    results_dir: str
    figure: Group | None = None
    table: Group | None = None
    tables: Group | None = None
    tune: Group | None = None
    paper: Group | None = None
    logs: Group | None = None
    hours: Group | None = None
    schedule: Group | None = None
    objective: Group | None = None
    estimator: Group | None = None
    adversary: Group | None = None
    strategy: Group | None = None
    asynchronous: Group | None = None


def refuse_settings(config: Mapping[str, Any], helpers: Collection[str], trainer: Any, ours: Collection[str]) -> None:
    """Check that a config is valid.

    Args:
        config: as composed, its interpolations resolved.
        helpers: keys that only interpolations refer to.
        trainer: the callable that takes the arguments in `trainer`.
        ours: those of these arguments that a run sets itself.

    Raises:
        InputError: a key that nothing reads; a value of a wrong type, or out of bounds.
    """
    read = {f.name for f in fields(Settings)}
    _refuse_arguments(Settings, {k: v for k, v in config.items() if k in read or k not in helpers}, "")
    if missing := [f.name for f in fields(Settings) if f.default is MISSING and f.name not in config]:
        raise InputError(f"{missing[0]}: not in the config; it is needed, as in configs/train.yaml")
    _refuse_arguments(Target, config["target"], "target.")
    if not math.isfinite(config["target"]["value"]):
        raise InputError(f"target.value: {config['target']['value']}; a finite number is needed")
    if config["target"]["metric"].endswith("accuracy") and not 0 <= config["target"]["value"] <= 1:
        raise InputError(f"target.value: {config['target']['value']}; a share from 0 to 1 is needed")
    for key, (least, most) in BOUNDS.items():
        if not least <= config[key] <= most:
            raise InputError(f"{key}: {config[key]}; a number from {least:,} to {most:,} is needed")
    if config.get("strategy") is None and config.get("asynchronous") is None:
        raise InputError("strategy: None; a run needs one, world=simulated has it")
    for key in ("algorithm", "adversary", "estimator", "seed", "engine"):
        if key in (config.get("strategy") or {}):
            raise InputError(f"strategy.{key}: {config['strategy'][key]!r}; {key} of the run says it, leave it out")
    arguments = config["trainer"]
    for key in arguments.keys() & ours:
        raise InputError(f"trainer.{key}: {arguments[key]!r}; a run sets it itself, leave it out")
    _refuse_arguments(trainer, arguments, "trainer.")
    steps_end_it = arguments.get("max_steps", -1) > 0
    for key in ABOVE_0:
        value = arguments.get(key)
        if value == -1 and (key == "max_steps" or (key == "max_epochs" and steps_end_it)):
            continue  # the other one ends the run
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise InputError(f"trainer.{key}: {value!r}; a number above 0 is needed")
    if arguments.get("max_epochs", 1) is None and not steps_end_it:
        raise InputError("trainer.max_epochs: None; a number above 0 is needed, or trainer.max_steps")
    for group in ("optimizer", "schedule", "trainer"):
        _refuse_infinite(config.get(group), f"{group}.")
    if config.get("strategy") is not None:
        _refuse_strategy(config["strategy"].get("_target_"))
    # Except the logger's: a run works without one, for example if W&B is not installed.
    refuse_parts({group: tree for group, tree in config.items() if group != "logger"}, "")
    gamma = (config.get("schedule") or {}).get("gamma")
    if isinstance(gamma, int | float) and not gamma > 0:
        raise InputError(f"schedule.gamma: {gamma}; a number above 0 is needed, rates are multiplied by it")


def _refuse_infinite(tree: Any, prefix: str) -> None:
    """Check that all numbers of a group, at any depth, are finite."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        _refuse_infinite(value, f"{prefix}{key}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{prefix}{key}: {value}; a finite number is needed")


def _refuse_strategy(path: Any) -> None:
    try:
        strategy = get_object(path) if isinstance(path, str) else None
    except Exception:  # whatever importing its module raises: told with that of all other parts
        return
    if not (inspect.isclass(strategy) and issubclass(strategy, Compressed)):
        told = "bench.CompressedStrategy or bench.CompressedDDPStrategy is needed"
        raise InputError(f"strategy._target_: {path}; {told}")


def refuse_parts(tree: Any, prefix: str) -> None:
    """Check every part of a config that has a `_target_`, at any depth.

    Raises:
        InputError: it cannot be imported, does not take a key, or not a value's type.
    """
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if not isinstance(tree, Mapping):
        return
    if (path := tree.get("_target_")) is not None:
        try:
            callee = get_object(path)
        except Exception as error:  # whatever importing its module raises
            raise InputError(f"{prefix}_target_: {path!r}; cannot be imported: {error}") from error
        _refuse_arguments(callee, {k: v for k, v in tree.items() if not k.startswith("_")}, prefix)
    for key, value in tree.items():
        refuse_parts(value, f"{prefix}{key}.")


def _refuse_arguments(callee: Any, given: Mapping[str, Any], prefix: str) -> None:
    """Check arguments by name and type, as far as signatures declare them."""
    known, takes_all = _arguments(callee)
    for key in () if takes_all else given.keys() - known.keys():
        alike = get_close_matches(key, known) or known
        raise InputError(f"{prefix}{key}: {given[key]!r}; nothing reads it, there is {', '.join(alike)}")
    for key, (hint, default) in known.items():
        if key in given and given[key] is not default and not _is_built(given[key]):
            _refuse_type(f"{prefix}{key}", given[key], hint)


def _arguments(callee: Any) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """The types and defaults of the keyword arguments by name, and whether other names are accepted, too."""
    known: dict[str, tuple[Any, Any]] = {}
    # A class of ours that takes **kwargs passes them on, so it has the arguments of its base class, too.
    for owner in callee.__mro__ if inspect.isclass(callee) else (callee,):
        function = owner.__init__ if inspect.isclass(owner) else owner
        try:
            parameters = inspect.signature(function).parameters
            hints = get_type_hints(function, localns=vars(typing) | vars(collections.abc))
        except (ValueError, TypeError, NameError):  # written in C, or annotated with names for type checkers only
            return known, True
        for name, parameter in parameters.items():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != "self":
                known.setdefault(name, (hints.get(name, Any), parameter.default))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return known, False
        if not _is_ours(owner):
            return known, True
    return known, True


def _is_ours(part: Any) -> bool:
    return getattr(part, "__module__", "").partition(".")[0] in ("bench", "datamodules", "models")


def _is_built(value: Any) -> bool:
    """Whether a value is, or contains, a part that is still to be instantiated."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_is_built, value.values()))
    return isinstance(value, list) and any(map(_is_built, value))


def _refuse_type(name: str, value: Any, hint: Any) -> None:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
        checked = adapter.validate_json(json.dumps(value))  # in JSON a list may be a tuple, as in a config
        if isinstance(checked, collections.abc.Iterator):  # an Iterable's entries are checked as they are read
            list(checked)
    except PydanticUserError:  # a type that pydantic cannot handle
        return
    except ValidationError as error:
        errors = error.errors()
        by_name = isinstance(value, str) and all(e["type"] in ("needs_python_object", "enum") for e in errors)
        if by_name and not any(map(_is_ours, (hint, *get_args(hint)))):
            return  # such as a torch.device, or an enum's member
        wanted = dict.fromkeys(WORDS.get(e["type"], e["msg"].removeprefix("Input should be ")) for e in errors)
        raise InputError(f"{name}: {value!r}; {' or '.join(wanted)} is needed") from None
