"""Models of a network: how many seconds a round would take on it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from bench.algorithm import Algorithm
from bench.errors import InputError


@dataclass(frozen=True)
class LinkModel(ABC):
    """Computes the transfer time of a round from the sizes of its messages.

    Args:
        bandwidth_bps: bits per second in each direction.
        latency_s: seconds per message, whatever its size.
    """

    bandwidth_bps: float = 1e9
    latency_s: float = 6e-3

    def __post_init__(self) -> None:
        if self.bandwidth_bps <= 0 or self.latency_s < 0:
            given = f"bandwidth_bps={self.bandwidth_bps}, latency_s={self.latency_s}"
            raise InputError(f"link: {given}; a bandwidth above 0 and a latency of at least 0 are needed")

    def refuse(self, algorithm: Algorithm) -> None:  # noqa: B027  most links carry any message
        """Raise InputError if this link cannot carry the recipe's messages."""

    @abstractmethod
    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        """Return the seconds of one round.

        Args:
            uplink_bits: bits that each worker uploads, by rank; 0 for a worker that skips.
            downlink_bits: bits of the broadcast.
        """

    def message_s(self, num_bits: float) -> float:
        return self.latency_s + num_bits / self.bandwidth_bps


@dataclass(frozen=True)
class StarLink(LinkModel):
    """The server receives uploads one after another, as in SASG's Table III.

    Worker 0 hosts the server, so its upload crosses no link (nine of ten uploads do). The broadcast is not charged.
    With 1 Gbps and 6 ms this gives the paper's 327 s for 100 rounds of dense ResNet18.
    """

    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        return sum(self.message_s(bits) for bits in uplink_bits[1:] if bits)


@dataclass(frozen=True)
class ParallelLink(LinkModel):
    """Every worker has its own link to a separate server: the longest upload, then one broadcast to all workers."""

    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        longest = max(uplink_bits)
        return (self.message_s(longest) if longest else 0.0) + self.message_s(downlink_bits)


@dataclass(frozen=True)
class RingLink(LinkModel):
    """Ring all-reduce: 2(M − 1) steps, each moving 1/M of the vector. Messages must be summable in transit."""

    def refuse(self, algorithm: Algorithm) -> None:
        if not algorithm.compressor.all_reducible or algorithm.rule.adaptive:
            raise InputError(f"link: ring; {algorithm.name} does not all-reduce, star or parallel is needed")

    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        num_workers = len(uplink_bits)
        return 2 * (num_workers - 1) * self.message_s(max(uplink_bits) / num_workers)
