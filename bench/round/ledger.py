"""The ledger: what a run has cost."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.link import LinkModel
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
        modelled_s: seconds on the modelled link.
        waited_s: seconds in the exchange of reports, in which faster workers wait for slower ones.
        measured_s: seconds in transit between real processes after that, both ways.
        sent_bytes, received_bytes: per worker, reports and padding included.
        downlink: the code of the broadcasts: "dense", "sign" (one bit per entry), "ternary" and so on.
    """

    rounds: int = 0
    uploads: int = 0
    skips: list[int] = field(default_factory=list)
    uplink_bits: int = 0
    uplink_bits_paper: int = 0
    downlink_bits: int = 0
    control_bits: int = 0
    num_backwards: int = 0
    modelled_s: float = 0.0
    waited_s: float = 0.0
    measured_s: float = 0.0
    sent_bytes: list[int] = field(default_factory=list)
    received_bytes: list[int] = field(default_factory=list)
    downlink: str = ""

    def record(
        self, report: Report, answer: Message, link: LinkModel, offer_bits: int, may_skip: bool, transit: Transit
    ) -> None:
        """Add one round.

        Args:
            report: of all M workers.
            answer: the server's, one row.
            link: models the network's seconds.
            offer_bits: what each uploader sent, and received, before compressing, to agree with the others; included
                in `report`.
            may_skip: whether workers tell in each round if they upload.
            transit: what the round's exchanges took.
        """
        num_workers = len(report.uploaded)
        self.downlink = answer.kind
        self.rounds += 1
        so_far = self.skips or [0] * num_workers
        self.skips = [n + (not sent) for n, sent in zip(so_far, report.uploaded.tolist(), strict=True)]
        offered, downlink_bits = offer_bits * report.uploaded, int(answer.num_bits)
        modelled_s = link.seconds((report.num_bits - offered).tolist(), downlink_bits)
        if offered.any():  # a separate exchange
            modelled_s += link.seconds(offered.tolist(), offer_bits)
            downlink_bits += offer_bits
        self.charge(report, downlink_bits, num_workers * may_skip, modelled_s, transit)

    def charge(
        self, report: Report, downlink_bits: int, control_bits: int, modelled_s: float, transit: Transit
    ) -> None:
        """Add the cost of one exchange, in a round or outside of rounds."""
        self.uploads += int(report.uploaded.sum())
        self.uplink_bits += int(report.num_bits.sum())
        self.uplink_bits_paper += int(report.num_bits_paper.sum())
        self.downlink_bits += downlink_bits
        self.control_bits += control_bits
        self.num_backwards += int(report.num_backwards.sum())
        self.modelled_s += modelled_s
        self.waited_s += transit.waited_s
        self.measured_s += transit.measured_s
        for name in ("sent_bytes", "received_bytes"):
            so_far = np.array(getattr(self, name) or [0] * len(report.uploaded))
            setattr(self, name, (so_far + getattr(transit, name)).tolist())

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict) -> None:
        self.__dict__.update(state)
