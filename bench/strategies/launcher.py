"""The processes of a run, started by rank 0's, and ended with it."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

GRACE_S = 10.0
"""How long processes have to end by themselves, with a line of their own."""


class ProcessLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher, which leaves no process behind.

    It has no observer. Lightning's kills this process as soon as another has ended, before it can say who is lost:
    here the next exchange between workers notices that.
    """

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except BaseException:
            self._end_all()
            raise

    def _end_all(self) -> None:
        """Wait for the others, and kill those that do not end, such as one that is stopped."""
        ends_at = time.monotonic() + GRACE_S
        for process in self.procs:
            try:
                process.wait(max(0.0, ends_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
