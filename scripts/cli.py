"""Errors as people want to read them: one line on bad input, exit status 2. HYDRA_FULL_ERROR=1 shows where, too."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

IN_FULL = os.environ.get("HYDRA_FULL_ERROR") == "1"


def guarded(main: Callable[[], None]) -> None:
    """Run a command's main; print one line and exit with status 2 for what its user can mend."""
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

        from bench.errors import InputError, NonFiniteError, WorkerLostError

        # ValueError: ours, and what libraries say of arguments. OSError: a place that cannot be written, for example.
        told = (ValueError, OSError, NonFiniteError, WorkerLostError)
        if not isinstance(error, (*told, HydraException, OmegaConfBaseException, MisconfigurationException)):
            raise
        if IN_FULL:
            traceback.print_exc()
        # What all processes know, one says; a lost worker is known to those it left.
        if getattr(rank_zero_only, "rank", 0) == 0 or isinstance(error, WorkerLostError):
            theirs = type(error) is not InputError and isinstance(error, ValueError)  # and may be a mistake in code
            print(f"error: {one_line(error)}{' (HYDRA_FULL_ERROR=1 shows where)' * theirs}", file=sys.stderr)
        sys.exit(2)


def _nobody_reads() -> bool:
    """Whether what this prints goes nowhere, as under `| head`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def one_line(error: BaseException) -> str:
    """The heart of an error's message, without Hydra's wrapping."""
    from hydra.errors import InstantiationException, MissingConfigException

    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: {name!r}; one of {', '.join(error.options)} is needed"
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, ValueError):
        return one_line(error.__cause__)
    return " ".join(str(error).split())


def each(items: Iterable[Any], work: Callable[[Any], None]) -> None:
    """Do a work for every item.

    Raises:
        InputError: what was wrong with some, once all have had their turn.
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
