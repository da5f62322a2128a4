"""How the processes of a run agree on its beginning, where torchrun or SLURM started them, on several machines.

Rank 0 alone looks into the run's folder, which the others may not see. It tells them what it found, and sends its
checkpoint to the machines that lack it.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from bench.collectives.processes import ProcessWorld
from bench.errors import InputError, WorkerLostError
from bench.runs.whole import replacing

T = TypeVar("T")


def launched_by() -> ClusterEnvironment | None:
    """Whoever started this process together with others: torchrun or SLURM. None if it was neither."""
    found = next((kind() for kind in (SLURMEnvironment, TorchElasticEnvironment) if kind.detect()), None)
    return found if found and found.world_size() > 1 else None


class Joined:
    """The processes of a run that were started together, joined in the default process group.

    Args:
        launcher: who started them.
        timeout: how long each waits for the others.

    Raises:
        WorkerLostError: not all came.
    """

    def __init__(self, launcher: ClusterEnvironment, timeout: timedelta) -> None:
        rank, size, self.local_rank = launcher.global_rank(), launcher.world_size(), launcher.local_rank()
        self.world = ProcessWorld(rank, size, torch.device("cpu"), timeout)
        os.environ |= {"MASTER_ADDR": launcher.main_address, "MASTER_PORT": str(launcher.main_port)}
        try:
            dist.init_process_group(rank=rank, world_size=size, timeout=timeout)
        except RuntimeError as error:
            told = f"rank {rank}: not all {size} workers came within {timeout.total_seconds():g} s ({error})"
            raise WorkerLostError(told) from error

    def told(self, look: Callable[[], T]) -> T:
        """What rank 0 sees, in every process.

        Raises:
            InputError: rank 0 raised it, or could not read or write its folder. In every process.
            WorkerLostError: another process ended.
        """
        seen, wrong = None, None
        if self.world.rank == 0:
            try:
                seen = look()
            except (ValueError, OSError) as error:
                wrong = str(error)
        seen, wrong = self.world.gather((seen, wrong))[0]
        if wrong is not None:
            dist.destroy_process_group()  # here, as gloo's threads may abort an interpreter that ends before them
            raise InputError(wrong)
        return seen

    @contextmanager
    def shared(self, look: Callable[[], Path | None], path: Path) -> Iterator[Path | None]:
        """Rank 0's checkpoint, if there is one, on every machine. What was sent is removed at the end.

        Args:
            look: where rank 0 has it.
            path: where others have theirs.
        """
        mine = self.told(lambda: (found := look()) and (found.stat().st_size, digest(found)))
        if mine is None:
            yield None
            return
        size, expected = mine
        may_lack = self.world.rank > 0 and self.local_rank == 0
        lacks = may_lack and (not path.exists() or digest(path) != expected)
        if any(self.world.gather(lacks)):
            with self.world.noticing_loss():
                self._send(path, size, lacks)
        try:
            yield path
        finally:
            if lacks:
                path.unlink(missing_ok=True)

    def _send(self, path: Path, size: int, lacks: bool) -> None:
        content = torch.empty(size, dtype=torch.uint8)
        if self.world.rank == 0:
            content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        dist.broadcast(content, 0)
        if lacks:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                partial.write_bytes(content.numpy().tobytes())
        dist.barrier()  # those of a machine share the file that one of them writes


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
