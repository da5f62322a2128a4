"""The columns of a run's history: what it counts and measures."""

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
    "worker_bits",
    "worker_messages",
    "upload_rounds",
    "longest_upload_bits",
    "agreement_rounds",
    "agreement_bits",
    "flag_rounds",
    "answers",
    "answer_bits",
    "waited_s",
    "measured_s",
    "compute_s",
    "compression_s",
    "sent_bytes",
    "received_bytes",
    "gradient_norm",
    "compression_error",
    "bits_over_bound",
    "train_loss",
    "test_accuracy",
    "test_top5_accuracy",
    "suboptimality",
    "val_loss",
    "val_perplexity",
)
"""Totals since the first round, except: `message_bits`, the mean size of an upload since the last evaluation; those of
BY_WORKER, a total per worker; `modelled_s`, the seconds on the config's link, which follow, as those on any other, from
`worker_bits` to `answer_bits` (`bench.traffic.Traffic`); `gradient_norm` to `bits_over_bound`, of its round
(`bench.collectives.report.Report`); `train_loss`, the mean since the last evaluation; the metrics of METRICS, of the
evaluation. Empty where there is no value."""

BY_WORKER = ("skips", "worker_bits", "worker_messages", "sent_bytes", "received_bytes")
MEASURED = ("waited_s", "measured_s", "compute_s", "compression_s", "sent_bytes", "received_bytes")
"""Known between real processes only. The seconds are rank 0's."""

METRICS = COLUMNS[-5:]
"""Metrics that an evaluation may find; None where the problem has no such metric."""

FALLING = ("train_loss", "suboptimality", "val_loss", "val_perplexity")
"""Metrics of which smaller values are better."""

COSTS = ("round", "uploads", "uplink_bits", "total_bits", "modelled_s", "measured_s")
"""The x axes of metrics, on W&B and on the dashboard."""

Row = dict[str, Any]


def total_bits(row: Row) -> int:
    """All bits sent, in both directions."""
    return row["uplink_bits"] + row["downlink_bits"] + row["control_bits"]
