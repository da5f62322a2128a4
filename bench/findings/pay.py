"""Does compression pay on a network? Seconds a step of each recipe, against the best that dense all-reduce can do.

Three things make the comparison fair (Agarwal et al., On the Utility of Gradient Compression, MLSys 2022): the baseline
is the best dense practice, 16-bit all-reduce beside the backward pass included; the compressor's own time counts; and a
step is not an accuracy, for which `bench.findings.race` takes recorded histories.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.findings.work import Work
from bench.link import DirectLink, GatherLink, LinkModel, NodeLink, RingLink, ShardedLink
from bench.traffic import Traffic

ALL_REDUCES: Mapping[str, type[NodeLink]] = {"ring": RingLink, "direct": DirectLink}
"""What carries the dense gradients that recipes are compared with: the quicker one."""
COLLECTIVES: Mapping[str, type[NodeLink]] = {**ALL_REDUCES, "sharded": ShardedLink, "gather": GatherLink}
FORMATS = {"fp32": 32, "fp16": 16, "bf16": 16}
"""Bits an entry of the dense all-reduces that recipes are compared with."""
MOST_WORKERS = 1_000_000
SLOWEST_BPS, FASTEST_BPS = 1e5, 1e13


@dataclass(frozen=True)
class Network:
    """A cluster, and the training that it is used for.

    Args:
        workers: M.
        bandwidth_bps: bits per second of each machine, in each direction.
        latency_s: seconds a message.
        step_s: a worker's computation of one batch.
        overlap: the share of it beside which dense all-reduces can travel.
        workers_per_node, intra_bandwidth_bps: of machines with several workers (`bench.link.NodeLink`).

    Raises:
        InputError: fewer than two workers, or too many, a negative time, or an overlap outside [0, 1].
    """

    workers: int
    bandwidth_bps: float
    latency_s: float
    step_s: float
    overlap: float = 0.0
    workers_per_node: int = 1
    intra_bandwidth_bps: float | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.workers <= MOST_WORKERS:
            raise InputError(f"workers: {self.workers}; from 2 to {MOST_WORKERS:,} are needed")
        if not self.step_s >= 0:
            raise InputError(f"step_ms: {1e3 * self.step_s:g}; at least 0 is needed")
        if not 0 <= self.overlap <= 1:
            raise InputError(f"overlap: {self.overlap}; a share between 0 and 1 is needed")
        self.link("ring")

    def link(self, collective: str) -> LinkModel:
        """The seconds of this collective here."""
        return COLLECTIVES[collective](
            self.bandwidth_bps, self.latency_s, self.workers_per_node, self.intra_bandwidth_bps
        )

    @property
    def hidden_s(self) -> float:
        """Seconds of a step beside which dense all-reduces can travel."""
        return self.overlap * self.step_s


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        name: of the recipe, or of the dense format.
        collective: that carries it.
        compute_s: gradients.
        compression_s: a worker's own work on messages.
        uplink_s, answer_s: messages on their way.
        hidden_s: of these, what travels beside the computation.
    """

    name: str
    collective: str
    compute_s: float
    compression_s: float
    uplink_s: float
    answer_s: float
    hidden_s: float = 0.0

    @property
    def exposed_s(self) -> float:
        """The seconds of communication that are waited for."""
        return self.uplink_s + self.answer_s - self.hidden_s

    @property
    def total_s(self) -> float:
        return self.compute_s + self.compression_s + self.exposed_s


def dense_steps(network: Network, dim: int, rounding_s: Mapping[str, float]) -> list[Step]:
    """The quickest all-reduce of d entries in each format.

    Args:
        network: where.
        dim: d.
        rounding_s: by format, the seconds to round a gradient and to expand the answer.
    """
    steps = []
    for name, bits in FORMATS.items():
        traffic, own_s = of_round(network.workers, dim * bits, 0), dict.fromkeys(ALL_REDUCES, rounding_s[name])
        steps.append(_quickest_of(name, own_s, traffic, network, network.step_s, network.hidden_s))
    return steps


def compressed_step(algorithm: Algorithm, work: Work, network: Network, skips: float = 0.0) -> Step:
    """The quickest step that one of the collectives gives a recipe.

    Args:
        algorithm: the recipe.
        work: measured for as many workers as the network has.
        network: where.
        skips: the share of uploads that a lazy rule skips, worker by worker independently.
    """
    lazy = algorithm.rule.adaptive
    traffic = of_round(network.workers, work.upload_bits, work.answer_bits, work.offer_bits, skips if lazy else 0, lazy)
    compute_s = network.step_s * (2 if algorithm.rule.second_pass else 1)
    hidden_s = network.hidden_s if algorithm.overlaps else 0.0
    return _quickest_of(algorithm.name, work.seconds, traffic, network, compute_s, hidden_s)


def _quickest_of(
    name: str, own_s: Mapping[str, float], traffic: Traffic, network: Network, compute_s: float, hidden_s: float
) -> Step:
    """The quickest of the steps that carry this traffic by each of some collectives. `own_s`: by collective."""
    steps = []
    for collective, compression_s in own_s.items():
        up_s, back_s = network.link(collective).parts(traffic)
        hidden = min(hidden_s, up_s + back_s)
        steps.append(Step(name, collective, compute_s, compression_s, up_s, back_s, hidden))
    return quickest(steps)


def of_round(
    num_workers: int,
    upload_bits: float,
    answer_bits: float,
    offer_bits: float = 0,
    skips: float = 0,
    flags: bool = False,
) -> Traffic:
    """The traffic of a typical round, in which each worker skips with probability `skips`."""
    agrees, sends, anyone = offer_bits > 0, 1 - skips, 1 - skips**num_workers
    return Traffic(
        worker_bits=[sends * (upload_bits + offer_bits)] * num_workers,
        worker_messages=[sends * (1 + agrees)] * num_workers,
        upload_rounds=anyone,
        longest_upload_bits=anyone * upload_bits,
        agreement_rounds=anyone * agrees,
        agreement_bits=anyone * offer_bits,
        flag_rounds=float(flags),
        answers=1,
        answer_bits=answer_bits,
    )


def quickest(steps: Sequence[Step]) -> Step:
    """The step that takes the least time."""
    return min(steps, key=lambda step: step.total_s)


def break_even_bps(total_s: Callable[[float], float], dense_s: Callable[[float], float]) -> tuple[float, float] | None:
    """The bandwidths between which a recipe's step is shorter than the best dense one.

    Args:
        total_s: bits per second -> the recipe's seconds.
        dense_s: bits per second -> the best dense step's.

    Returns:
        The least and the most, 0 and infinity where there is none within reach; None if it is never shorter.
    """

    def crossing(low: float, high: float) -> float:
        wins = total_s(low) < dense_s(low)
        for _ in range(40):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if (total_s(middle) < dense_s(middle)) == wins else (low, middle)
        return math.sqrt(low * high)

    grid = [SLOWEST_BPS * (FASTEST_BPS / SLOWEST_BPS) ** (i / 160) for i in range(161)]
    pays = [total_s(bps) < dense_s(bps) for bps in grid]
    if not any(pays):
        return None
    won = [i for i, wins in enumerate(pays) if wins]
    first, last = won[0], won[-1]
    least = 0.0 if first == 0 else crossing(grid[first - 1], grid[first])
    return least, math.inf if last == len(grid) - 1 else crossing(grid[last], grid[last + 1])


def on(network: Network, bandwidth_bps: float) -> Network:
    """The same cluster with another bandwidth between its machines."""
    return replace(network, bandwidth_bps=bandwidth_bps)


def verdict(steps: Sequence[Step], dense: Sequence[Step]) -> str:
    """One sentence: whether a recipe's step is shorter than the best dense one, and by how much."""
    best, own = quickest(dense), quickest(steps)
    if best.exposed_s <= 1e-3 * best.total_s:
        return f"Nothing pays: DDP hides all of its communication ({best.name} all-reduce)."
    ratio = best.total_s / own.total_s
    if ratio <= 1:
        return (
            f"Nothing pays: {own.name}, the quickest, takes {1 / ratio:.2f}× the time of {best.name} all-reduce "
            f"({1e3 * own.total_s:.1f} ms a step instead of {1e3 * best.total_s:.1f})."
        )
    return (
        f"{own.name} pays if it needs fewer than {ratio:.2f}× the steps to your accuracy: {1e3 * own.total_s:.1f} ms a "
        f"step instead of {1e3 * best.total_s:.1f} ({best.name} all-reduce, the best dense one)."
    )
