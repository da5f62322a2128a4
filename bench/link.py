"""Models of a network: how many seconds a run's messages would take on it.

All are linear in the sums of `Traffic`, so that seconds on any network follow after a run.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.traffic import Traffic

REPORT_BITS = 15 * 64
"""What a worker tells all others about its round, ahead of its message: `bench.collectives.report.Report`."""


@dataclass(frozen=True)
class LinkModel(ABC):
    """Computes the seconds of messages.

    Args:
        bandwidth_bps: bits per second in each direction, of each machine.
        latency_s: seconds per message, whatever its size; messages that are sent at once wait once.

    Raises:
        InputError: no bandwidth, or a latency that is negative or has no end.
    """

    bandwidth_bps: float = 1e9
    latency_s: float = 6e-3

    def __post_init__(self) -> None:
        if not self.bandwidth_bps > 0 or not 0 <= self.latency_s < math.inf:
            given = f"bandwidth_bps={self.bandwidth_bps}, latency_s={self.latency_s}"
            raise InputError(f"link: {given}; a bandwidth above 0 and a latency of at least 0 are needed")

    @property
    def told(self) -> str:
        """In words."""
        name = type(self).__name__.removesuffix("Link").lower()
        return f"{name}, {self.bandwidth_bps / 1e9:g} Gbit/s, {self.latency_s * 1e6:g} µs a message"

    def refuse(self, algorithm: Algorithm) -> None:  # noqa: B027  most links carry any message
        """Raise InputError if this link cannot carry the recipe's messages."""

    @abstractmethod
    def parts(self, traffic: Traffic) -> tuple[float, float]:
        """Return the seconds up to the server, where there is none half of the way, and those back."""

    def seconds(self, traffic: Traffic) -> float:
        """Return the seconds that this traffic takes."""
        return sum(self.parts(traffic))

    def _s(self, num_messages: float, num_bits: float) -> float:
        """Seconds of messages sent one after another."""
        return num_messages * self.latency_s + num_bits / self.bandwidth_bps


@dataclass(frozen=True)
class ParallelLink(LinkModel):
    """Every worker has its own link to a separate server: the longest upload, then one broadcast to all workers."""

    def parts(self, traffic: Traffic) -> tuple[float, float]:
        flags_s = self._s(traffic.flag_rounds, traffic.flag_rounds)  # a bit each
        up = self._s(traffic.upload_rounds, traffic.longest_upload_bits) + flags_s
        down = self._s(traffic.answers, traffic.answer_bits)
        agreed = self._s(traffic.agreement_rounds, traffic.agreement_bits)
        return up + agreed, down + agreed


@dataclass(frozen=True)
class NodeLink(LinkModel):
    """A network between machines that hold several workers each, of neighbouring ranks.

    Args:
        workers_per_node: workers on each machine, which share its `bandwidth_bps`.
        intra_bandwidth_bps: bits per second, in each direction, of each worker to others on its machine.

    Raises:
        InputError: machines of several workers without a bandwidth in them.
    """

    workers_per_node: int = 1
    intra_bandwidth_bps: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers_per_node < 1:
            raise InputError(f"link.workers_per_node: {self.workers_per_node}; at least 1 is needed")
        if self.workers_per_node > 1 and not (self.intra_bandwidth_bps or 0) > 0:
            given = f"intra_bandwidth_bps={self.intra_bandwidth_bps} with workers_per_node={self.workers_per_node}"
            raise InputError(f"link: {given}; a bandwidth above 0 is needed")

    @property
    def told(self) -> str:
        inside = f"; machines of {self.workers_per_node}, {(self.intra_bandwidth_bps or 0) / 1e9:g} Gbit/s within"
        return super().told + inside * (self.workers_per_node > 1)

    def _exchange_s(self, num_exchanges: float, num_bits: float, num_workers: int) -> float:
        """Seconds of exchanges in which each worker sends each other one `num_bits`, all at once.

        A machine's workers share its link to the others, while those within it exchange theirs.
        """
        here = min(self.workers_per_node, num_workers)
        outside_s = here * (num_workers - here) * num_bits / self.bandwidth_bps
        inside_s = (here - 1) * num_bits / self.intra_bandwidth_bps if self.intra_bandwidth_bps else 0.0
        return (num_exchanges * self.latency_s if num_workers > 1 else 0.0) + max(outside_s, inside_s)


@dataclass(frozen=True)
class StarLink(NodeLink):
    """The server receives uploads one after another, as in SASG's Table III.

    Worker 0 hosts the server, so its upload crosses no link (nine of ten uploads do). Neither the broadcast is charged
    nor flags. With 1 Gbps and 6 ms this gives the paper's 327 s for 100 rounds of dense ResNet18.
    """

    def parts(self, traffic: Traffic) -> tuple[float, float]:
        near = slice(1, self.workers_per_node)  # on the server's machine
        far = slice(self.workers_per_node, None)
        bits, messages = traffic.worker_bits, traffic.worker_messages
        inside_s = sum(bits[near]) / self.intra_bandwidth_bps if self.intra_bandwidth_bps else 0.0
        return self._s(sum(messages[near]) + sum(messages[far]), sum(bits[far])) + inside_s, 0.0


@dataclass(frozen=True)
class RingLink(NodeLink):
    """Ring all-reduce: 2(M − 1) steps, each moving 1/M of the vector. Messages must be summable in transit.

    The ring visits machine after machine, so that one worker's piece at a time leaves each.
    """

    def refuse(self, algorithm: Algorithm) -> None:
        if not algorithm.adds_up:
            name = type(self).__name__.removesuffix("Link").lower()
            raise InputError(f"link: {name}; {algorithm.name} does not all-reduce; star, sharded or gather is needed")

    def parts(self, traffic: Traffic) -> tuple[float, float]:
        size = traffic.num_workers
        inside = self.intra_bandwidth_bps or self.bandwidth_bps if self.workers_per_node > 1 else self.bandwidth_bps
        slowest = inside if size <= self.workers_per_node else min(self.bandwidth_bps, inside)
        rounds = traffic.upload_rounds + traffic.agreement_rounds
        bits = traffic.longest_upload_bits + traffic.agreement_bits
        half = (size - 1) * (rounds * self.latency_s + bits / size / slowest)
        return half, half  # summing up, and passing the sums on


@dataclass(frozen=True)
class DirectLink(RingLink):
    """All-reduce in two exchanges: every worker sends each other one its piece, and then the sum of the pieces that it
    got. As many bits as on a ring, and two latencies instead of 2(M − 1)."""

    def parts(self, traffic: Traffic) -> tuple[float, float]:
        size = traffic.num_workers
        rounds = traffic.upload_rounds + traffic.agreement_rounds
        half = self._exchange_s(rounds, (traffic.longest_upload_bits + traffic.agreement_bits) / size, size)
        return half, half


@dataclass(frozen=True)
class ShardedLink(NodeLink):
    """Every worker serves a slice of the vector (`bench.collectives.sharded`): reports, pieces, answers.

    Everyone's reports tell the sizes of pieces, and each answer whether it is finite. Where the size of an answer
    depends on the data, a further short exchange tells it, which is not modelled.
    """

    def refuse(self, algorithm: Algorithm) -> None:
        parts = (algorithm.compressor, algorithm.broadcast)
        cuttable = all(message.cuttable for part in parts for message in part.kinds((128,), torch.zeros(128)))
        if not (cuttable and algorithm.entrywise) and not algorithm.adds_up:
            raise InputError(f"link: sharded; {algorithm.name} cannot be cut, gather is needed")

    def parts(self, traffic: Traffic) -> tuple[float, float]:
        size, answers = traffic.num_workers, traffic.answers
        up = (
            self._exchange_s(answers, answers * (REPORT_BITS + 64 * size), size)
            + self._exchange_s(traffic.agreement_rounds, traffic.agreement_bits, size)
            + self._exchange_s(traffic.upload_rounds, traffic.longest_upload_bits / size, size)
        )
        return up, self._exchange_s(answers, traffic.answer_bits / size + answers * 64 * (3 + size), size)


@dataclass(frozen=True)
class GatherLink(NodeLink):
    """Every message is sent to everybody (`bench.collectives.gather`): reports, then messages. No answer crosses."""

    def parts(self, traffic: Traffic) -> tuple[float, float]:
        size = traffic.num_workers
        up = (
            self._exchange_s(traffic.answers, traffic.answers * REPORT_BITS, size)
            + self._exchange_s(traffic.agreement_rounds, traffic.agreement_bits, size)
            + self._exchange_s(traffic.upload_rounds, traffic.longest_upload_bits, size)
        )
        return up, 0.0
