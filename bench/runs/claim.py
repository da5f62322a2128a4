"""Who runs a cell of a grid, for all who share its folder: a file with host, process, progress and a heartbeat.

A lock of the operating system holds on one machine only. A claim whose heart has stopped is stale, and may be taken
over; so is one of a process of this host that is no more.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

BEAT_S = 15.0
STALE_S = 120.0


@dataclass
class Claim:
    """A run's claim on its folder.

    Attributes:
        host: its machine.
        pid: its process.
        round: the rounds that are done.
        num_rounds: of all; 0 until it is known.
        began_at, began_round: when this process began, in seconds of the epoch, and after which round.
        beat_at: when it was last heard of.
    """

    host: str
    pid: int
    round: int = 0
    num_rounds: int = 0
    began_at: float = 0.0
    began_round: int = 0
    beat_at: float = 0.0

    @classmethod
    def mine(cls) -> Self:
        """A claim of this process."""
        return cls(socket.gethostname(), os.getpid(), began_at=time.time(), beat_at=time.time())

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The claim in a file; None if there is none, or none that can be read."""
        try:
            return cls(**json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def is_live(self) -> bool:
        """Whether the one who made it may still be at work."""
        if time.time() - self.beat_at > STALE_S:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    @property
    def told(self) -> str:
        """Who it is, how far, and how long it will take."""
        who = f"{self.host}, process {self.pid}"
        if not self.num_rounds:
            return who
        done = self.round - self.began_round
        to_go = (self.num_rounds - self.round) * (self.beat_at - self.began_at) / done if done else None
        rest = "" if to_go is None else f", about {_duration(to_go)} to go"
        return f"{who}, round {self.round:,} of {self.num_rounds:,}{rest}"

    def progress(self, round: int, num_rounds: int) -> None:
        """Note how far the run is."""
        if not self.num_rounds:
            self.began_round, self.began_at = round, time.time()
        self.round, self.num_rounds = round, num_rounds

    def is_of(self, other: "Claim | None") -> bool:
        """Whether another claim is of the same process."""
        return other is not None and (self.host, self.pid) == (other.host, other.pid)

    def write(self, file: Path) -> None:
        """Write it, with a heartbeat, so that it appears whole."""
        self.beat_at = time.time()
        partial = self._partial(file)
        partial.replace(file)

    def take(self, file: Path) -> "Claim | None":
        """Put it in place of none, of a stale one, or of one of this machine, where a lock says more.

        Returns another machine's live claim that is there instead; None if this one is.
        """
        partial = self._partial(file)
        try:
            os.link(partial, file)  # of several that try at once, one succeeds
        except FileExistsError:
            theirs = Claim.read(file)
            if theirs and theirs.is_live and theirs.host != self.host:
                return theirs
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
        there = Claim.read(file)
        return None if self.is_of(there) else there

    def _partial(self, file: Path) -> Path:
        partial = file.with_name(f"{file.name}.{self.host}.{self.pid}.partial")
        try:
            partial.write_text(json.dumps(asdict(self)), "utf-8")
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(file)) from error  # names the file that is meant
        return partial


class HeldError(Exception):
    """Another machine has a live claim, `args[0]`."""


@contextmanager
def claimed(file: Path) -> Iterator[Claim]:
    """Hold a claim, and let its heart beat, until the block is left. If another took it over, as this process was not
    heard of for long, this process is told to end.

    Raises:
        HeldError: another machine has a live one.
    """
    claim, done = Claim.mine(), threading.Event()
    if theirs := claim.take(file):
        raise HeldError(theirs)

    def beat() -> None:
        while not done.wait(BEAT_S):
            with suppress(OSError):  # a full disk stops no run
                if (there := Claim.read(file)) and not claim.is_of(there):
                    print(f"{file}: taken over by {there.told}; this run ends", file=sys.stderr)
                    return os.kill(os.getpid(), signal.SIGTERM)
                claim.write(file)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield claim
    finally:
        done.set()
        heart.join()
        if claim.is_of(Claim.read(file)):
            file.unlink(missing_ok=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
