"""Error handling of the commands: on bad input, one line and exit status 2; HYDRA_FULL_ERROR=1 adds the traceback."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

IN_FULL = os.environ.get("HYDRA_FULL_ERROR") == "1"


def guarded(main: Callable[[], None]) -> None:
    """Run a command's main; for errors that the user can fix, print one line and exit with status 2."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        # Imported here, so that --help is quick.
        from hydra.errors import HydraException
        from lightning.fabric.utilities.exceptions import MisconfigurationException
        from lightning.pytorch.utilities import rank_zero_only
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        from bench.errors import DamagedError, InputError, NonFiniteError, WorkerLostError

        # ValueError: ours, and libraries' for bad arguments. OSError: a path that cannot be written, for example.
        told = (ValueError, OSError, YAMLError, DamagedError, NonFiniteError, WorkerLostError)
        if not isinstance(error, (*told, HydraException, OmegaConfBaseException, MisconfigurationException)):
            raise
        if IN_FULL:
            traceback.print_exc()
        # Rank 0 prints an error that all processes share; a lost worker is reported by every process that survives.
        if getattr(rank_zero_only, "rank", 0) == 0 or isinstance(error, WorkerLostError):
            ours = type(error) is InputError or isinstance(error, OmegaConfBaseException)
            theirs = isinstance(error, ValueError) and not ours  # may be a bug instead
            print(f"error: {one_line(error)}{' (HYDRA_FULL_ERROR=1 shows where)' * theirs}", file=sys.stderr)
        sys.exit(2)


def _nobody_reads() -> bool:
    """Whether nothing reads standard output any more, as after `| head`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def one_line(error: BaseException) -> str:
    """An error's message on one line, without Hydra's wrapping."""
    from hydra.errors import InstantiationException, MissingConfigException, OverrideParseException
    from omegaconf.errors import InterpolationKeyError

    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: {name!r}; one of {', '.join(error.options)} is needed"
    if isinstance(error, InterpolationKeyError):
        _, missing, _ = str(error).split("'", 2)
        return f"{error.full_key}: ${{{missing}}}; this config has no {missing}, a value is needed here or there"
    if isinstance(error, OverrideParseException):
        quoted = "key='\"a b\"' where the value has spaces, commas or the like"
        return f"{error.override!r}: no setting; key=value is needed, {quoted}"
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, ValueError):
        return one_line(error.__cause__)
    return " ".join(str(error).split()).replace(
        "To append to your config use", "If it is not misspelt, it is appended by"
    )


def each(items: Iterable[Any], work: Callable[[Any], None]) -> None:
    """Call `work` on every item.

    Raises:
        InputError: some items failed; raised after all were tried, with all messages.
    """
    from bench.errors import InputError

    troubles = []
    for item in items:
        try:
            work(item)
        except InputError as error:
            troubles.append(str(error))
    if troubles:
        raise InputError("; ".join(troubles))
