"""What a run counts and measures: the columns of its history."""

from typing import Any

COLUMNS = (
    "round",
    "epoch",
    "uploads",
    "uplink_bits",
    "uplink_bits_paper",
    "downlink_bits",
    "control_bits",
    "total_bits",
    "message_bits",
    "skips",
    "num_backwards",
    "data_passes",
    "modelled_s",
    "measured_s",
    "gradient_norm",
    "compression_error",
    "bits_over_bound",
    "train_loss",
    "test_accuracy",
    "test_top5_accuracy",
    "suboptimality",
)
"""Totals since the first round, and at that evaluation: `message_bits`, the mean size of an upload since the last
evaluation; `skips`, of each worker; `gradient_norm` to `bits_over_bound` of that round (`bench.round.ledger.Report`);
`train_loss`, the mean since the last evaluation. Empty where there is no such thing."""

METRICS = COLUMNS[-3:]
"""What an evaluation may find; None where the problem has no such thing."""

FALLING = ("train_loss", "suboptimality")
"""Metrics that are the better the smaller."""

COSTS = ("round", "uploads", "uplink_bits", "total_bits", "modelled_s", "measured_s")
"""What metrics are shown against, on W&B and on the page."""

Row = dict[str, Any]


def total_bits(row: Row) -> int:
    """All that crossed, both ways."""
    return row["uplink_bits"] + row["downlink_bits"] + row["control_bits"]
