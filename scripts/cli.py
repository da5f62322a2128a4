"""Errors as people want to read them: one line on bad input, exit status 2."""

import os
import sys
from collections.abc import Callable


def guarded(main: Callable[[], None]) -> None:
    """Run a command's main; print one line and exit with status 2 for what its user can mend."""
    from hydra.errors import HydraException
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities import rank_zero_only
    from omegaconf.errors import OmegaConfBaseException

    from bench.errors import InputError, NonFiniteError, WorkerLostError

    ours = (InputError, NonFiniteError, WorkerLostError)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let Hydra's errors come here instead of printing them itself
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (*ours, HydraException, OmegaConfBaseException, MisconfigurationException) as error:
        # What all processes know, one says; a lost worker is known to those it left.
        if getattr(rank_zero_only, "rank", 0) == 0 or isinstance(error, WorkerLostError):
            print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def one_line(error: BaseException) -> str:
    """The heart of an error's message, without Hydra's wrapping."""
    from hydra.errors import InstantiationException, MissingConfigException

    from bench.errors import InputError

    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: {name!r}; one of {', '.join(error.options)} is needed"
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, InputError):
        return str(error.__cause__)
    return " ".join(str(error).split())
