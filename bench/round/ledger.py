"""The ledger: what a run has cost."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.traffic import Traffic
from bench.wire.message import Message


@dataclass
class Ledger:
    """Totals since the first round, over all M workers.

    Attributes:
        rounds: server updates.
        uploads: how often a worker sent its message.
        skips: per worker, rounds in which it sent nothing.
        uplink_bits: sent by workers: values, positions, lengths.
        uplink_bits_paper: the same, as the method's own paper counts it.
        downlink_bits: the server's broadcasts, counted once per round whatever the number of workers.
        control_bits: one bit per worker and round on whether it uploads, where it may skip.
        num_backwards: backward passes; lazy rules take more than one per worker and round.
        waited_s: seconds in the exchange of reports, and for the slowest server: faster workers wait for slower ones.
        measured_s: seconds in transit between real processes after that, both ways.
        sent_bytes, received_bytes: per worker, reports and padding included.
        compute_s: seconds of gradients, but for those of anchors, as this process sees them.
        compression_s: seconds of the rounds besides gradients and exchanges: to compress, encode, decode and add up.
        downlink: the code of the broadcasts: "dense", "sign" (one bit per entry), "ternary" and so on.
        traffic: what the seconds of any network follow from; None in a run that began without counting it.
    """

    rounds: int = 0
    uploads: int = 0
    skips: list[int] = field(default_factory=list)
    uplink_bits: int = 0
    uplink_bits_paper: int = 0
    downlink_bits: int = 0
    control_bits: int = 0
    num_backwards: int = 0
    waited_s: float = 0.0
    measured_s: float = 0.0
    sent_bytes: list[int] = field(default_factory=list)
    received_bytes: list[int] = field(default_factory=list)
    compute_s: float = 0.0
    compression_s: float = 0.0
    downlink: str = ""
    traffic: Traffic | None = None

    @property
    def total_bits(self) -> int:
        """All bits sent, in both directions."""
        return self.uplink_bits + self.downlink_bits + self.control_bits

    def record(self, report: Report, answer: Message, offer_bits: int, may_skip: bool, transit: Transit) -> None:
        """Add one round.

        Args:
            report: of all M workers.
            answer: the server's, one row.
            offer_bits: what each uploader sent, and received, before compressing, to agree with the others; included
                in `report`.
            may_skip: whether workers tell in each round if they upload.
            transit: what the round's exchanges took.
        """
        self.downlink = answer.kind
        so_far = self.skips or [0] * len(report.uploaded)
        self.skips = [n + (not sent) for n, sent in zip(so_far, report.uploaded.tolist(), strict=True)]
        self.charge(report, int(answer.num_bits), transit, offer_bits, may_skip)
        self.rounds += 1

    def charge(
        self, report: Report, answer_bits: int, transit: Transit, offer_bits: int = 0, may_skip: bool = False
    ) -> None:
        """Add the cost of one exchange, in a round or outside of rounds."""
        num_workers, uploaded = len(report.uploaded), report.uploaded
        if self.traffic is None and not self.rounds:
            self.traffic = Traffic.none(num_workers)
        if self.traffic is not None:
            self.traffic.add(uploaded, report.num_bits - offer_bits * uploaded, answer_bits, offer_bits, may_skip)
        self.uploads += int(uploaded.sum())
        self.uplink_bits += int(report.num_bits.sum())
        self.uplink_bits_paper += int(report.num_bits_paper.sum())
        self.downlink_bits += answer_bits + (offer_bits if uploaded.any() else 0)
        self.control_bits += num_workers * may_skip
        self.num_backwards += int(report.num_backwards.sum())
        self.waited_s += transit.waited_s
        self.measured_s += transit.measured_s
        for name in ("sent_bytes", "received_bytes"):
            so_far = np.array(getattr(self, name) or [0] * num_workers)
            setattr(self, name, (so_far + getattr(transit, name)).tolist())

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict) -> None:
        """Restore a state from `state_dict`, also of a version that knew less, or modelled seconds itself."""
        known = {name: value for name, value in state.items() if name != "modelled_s"}
        traffic = known.pop("traffic", None)
        self.__dict__.update(known, traffic=None if traffic is None else Traffic(**traffic))
