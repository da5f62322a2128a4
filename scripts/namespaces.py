"""A shaped network on one machine: a namespace for each worker, joined by a switch, every link a token bucket."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from bench.errors import InputError

NAME = "bitbudget"
SUBNET = "10.77.0"
MOST_WORKERS = 64
LEAST_BPS, MOST_BPS = 1e6, 4e10
QUEUE_MS = 400


class Testbed:
    """M namespaces, each with one link of a bandwidth in each direction. Taken down on exit, whatever happens.

    Args:
        workers: M.
        bandwidth_bps: of each link; None for as fast as the machine is.
        name: begins the names of the namespaces.

    Raises:
        InputError: such a network cannot be built, or not here; the message says why.
    """

    __test__ = False  # no test class, whatever its name

    def __init__(self, workers: int, bandwidth_bps: float | None, name: str = NAME) -> None:
        if not 1 <= workers <= MOST_WORKERS:
            raise InputError(f"workers: {workers}; 1 to {MOST_WORKERS} are possible")
        if bandwidth_bps is not None and not LEAST_BPS <= bandwidth_bps <= MOST_BPS:
            raise InputError(f"bandwidth: {bandwidth_bps:g} bit/s; {LEAST_BPS:g} to {MOST_BPS:g} are possible")
        self.workers = workers
        self.bandwidth_bps = bandwidth_bps
        self.name = name

    @property
    def address(self) -> str:
        """Of the first worker."""
        return f"{SUBNET}.1"

    def up(self) -> None:
        """Build it, in place of one of the same name in which nothing runs.

        Raises:
            InputError: processes run in that; it cannot be built.
        """
        if busy := [name for name in self._there() if _ip("netns", "pids", name).split()]:
            raise InputError(f"{', '.join(busy)}: in use; scripts/testbed.py down ends the processes there")
        self.down()
        try:
            self._build()
        except BaseException:
            self.down()
            raise

    def _build(self) -> None:
        switch = f"{self.name}-switch"
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for rank in range(self.workers):
            host, port = self.host(rank), f"port{rank}"
            _ip("netns", "add", host)
            _ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
            _ip("-n", host, "address", "add", f"{SUBNET}.{rank + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host, "link", "set", device, "up")
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            if self.bandwidth_bps is not None:
                self._shape(host, "eth0")
                self._shape(switch, port)

    def _shape(self, namespace: str, device: str) -> None:
        assert self.bandwidth_bps is not None
        # A millisecond of it. Less cuts the packets of fast links small, and cutting them keeps two cores busy.
        burst = max(32_768, round(self.bandwidth_bps * 1e-3 / 8))
        bucket = ("rate", f"{self.bandwidth_bps:.0f}bit", "burst", f"{burst}b", "latency", f"{QUEUE_MS}ms")
        _run(["tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *bucket])

    def host(self, rank: int) -> str:
        """The namespace of a worker."""
        return f"{self.name}-{rank}"

    def down(self) -> None:
        """End the processes in it, and remove it. Nothing happens if there is none."""
        for namespace in self._there():
            for pid in _ip("netns", "pids", namespace).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            _ip("netns", "delete", namespace)

    def _there(self) -> list[str]:
        listed = _ip("netns", "list").splitlines()
        names = [line.split()[0] for line in listed if line.strip()]
        return [name for name in names if name.startswith(f"{self.name}-")]

    def start(
        self, rank: int, command: Sequence[str], environment: Mapping[str, str], **options: object
    ) -> "subprocess.Popen[str]":
        """Start a command as a worker, whose collectives use its link."""
        inside = ["ip", "netns", "exec", self.host(rank), *command]
        told = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "TP_SOCKET_IFNAME": "eth0", **environment}
        return subprocess.Popen(inside, env=told, text=True, start_new_session=True, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def refusal() -> str | None:
    """Why no network can be built here; None if one can."""
    if missing := [tool for tool in ("ip", "tc") if shutil.which(tool) is None]:
        return f"{' and '.join(missing)}: not installed; iproute2 has them"
    probe = f"{NAME}-probe{os.getpid()}"
    try:
        _ip("netns", "add", probe)
    except InputError as error:
        return f"namespaces: {error}; root is needed, or a user namespace (see --help)"
    _ip("netns", "delete", probe)
    return None


def enter_user_namespace() -> None:
    """Go on as root of a user namespace of one's own, if this process is not root and may do so."""
    if os.geteuid() == 0 or shutil.which("unshare") is None:
        return
    inside = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--fork", "--kill-child"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        return
    mounted = 'mount -t tmpfs tmpfs /run && exec "$@"'
    os.execvp("unshare", [*inside, "sh", "-c", mounted, "sh", sys.executable, *sys.argv])


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(command)}: {' '.join(done.stderr.split())}")
    return done.stdout
