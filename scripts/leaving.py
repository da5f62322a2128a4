"""How a run's process ends when it is told to: the job may be queued again, and goes on where it was."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, NoReturn

REQUEUEING = (signal.SIGUSR1, signal.SIGUSR2)
"""The signals with which SLURM and submitit announce that a job's time is over."""


def requeued_from_now_on() -> None:
    """Have the job queued again if its time is over before training listens to signals: nothing is computed yet.

    Only under SLURM, and where whoever launched this process has set no handler.
    """
    for number in REQUEUEING if "SLURM_JOB_ID" in os.environ else ():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: leave(number, None))


def without_requeueing() -> list[Any]:
    """The plugins that keep Lightning from saving and requeueing SLURM's jobs by itself, elsewhere than in the run's
    folder."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def leave(number: int, launchers: Any) -> NoReturn:
    """End the process as the signal asks: SIGUSR1 and SIGUSR2 by having the job queued again.

    Args:
        number: of the signal; 0 if another process got it.
        launchers: the handler that whoever launched this process had set for it, such as submitit's.
    """
    leave_group()
    if number in REQUEUEING:
        if callable(launchers):
            launchers(number, None)
        elif "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_PROCID", "0") == "0":
            job, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
            with suppress(OSError):
                subprocess.run(["scontrol", "requeue", f"{job}_{task}" if job else os.environ["SLURM_JOB_ID"]])
        sys.exit(138)
    sys.exit(128 + (number or signal.SIGTERM))


def leave_group() -> None:
    """Leave the process group, if there is one: gloo's threads may abort an interpreter that ends before them."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
