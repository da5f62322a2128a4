"""What a round costs in seconds on a network that is modelled, not measured."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from bench.algorithm import Algorithm
from bench.errors import InputError


@dataclass(frozen=True)
class LinkModel(ABC):
    """
    Args:
        bandwidth_bps: bits a second in each direction.
        latency_s: seconds a message, whatever its size.
    """

    bandwidth_bps: float = 1e9
    latency_s: float = 6e-3

    def __post_init__(self) -> None:
        if self.bandwidth_bps <= 0 or self.latency_s < 0:
            given = f"bandwidth_bps={self.bandwidth_bps}, latency_s={self.latency_s}"
            raise InputError(f"link: {given}; above 0 and at least 0 are needed")

    def refuse(self, algorithm: Algorithm) -> None:  # noqa: B027  most links carry anything
        """Raise InputError when the recipe's messages cannot travel this way."""

    @abstractmethod
    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        """One round. `uplink_bits`: bits by rank, 0 where no upload; `downlink_bits`: the broadcast."""

    def message_s(self, num_bits: float) -> float:
        return self.latency_s + num_bits / self.bandwidth_bps


@dataclass(frozen=True)
class StarLink(LinkModel):
    """Uploads one after another, as SASG's Table III was taken.

    Worker 0 keeps the server, so its upload crosses no link (nine of ten are received), and the broadcast is not
    charged. With 1 Gbps and 6 ms this gives the paper's 327 s for 100 rounds of dense ResNet18.
    """

    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        return sum(self.message_s(bits) for bits in uplink_bits[1:] if bits)


@dataclass(frozen=True)
class ParallelLink(LinkModel):
    """Every worker has a link of its own to a server apart: the longest upload, then the broadcast to all at once."""

    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        longest = max(uplink_bits)
        return (self.message_s(longest) if longest else 0.0) + self.message_s(downlink_bits)


@dataclass(frozen=True)
class RingLink(LinkModel):
    """Ring all-reduce: 2(M − 1) steps, each moving an M-th of the vector. For messages that add up on their way."""

    def refuse(self, algorithm: Algorithm) -> None:
        if not algorithm.compressor.all_reducible or algorithm.rule.adaptive:
            raise InputError(f"link: ring; {algorithm.name} does not all-reduce, choose star or parallel")

    def seconds(self, uplink_bits: Sequence[int], downlink_bits: int) -> float:
        num_workers = len(uplink_bits)
        return 2 * (num_workers - 1) * self.message_s(max(uplink_bits) / num_workers)
