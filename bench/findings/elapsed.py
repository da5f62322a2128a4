"""The seconds that a recorded run would have taken on a network."""

from collections.abc import Sequence

from bench.link import LinkModel
from bench.runs.columns import Row
from bench.traffic import Traffic


def elapsed(
    rows: Sequence[Row], link: LinkModel, step_s: float = 0.0, hidden_s: float = 0.0, own_s: float = 0.0
) -> list[float | None]:
    """The seconds since the first round at each row; None where a row lacks what they follow from.

    Args:
        rows: of a history.
        link: carries the messages.
        step_s: a worker's computation of one batch, for each backward pass that the run took.
        hidden_s: of each round, the communication that runs beside the computation.
        own_s: of each round, a worker's own work on messages.
    """
    total, times = 0.0, list[float | None]()
    rounds, passes, before = 0, 0, None
    for row in rows:
        if (traffic := Traffic.of(row)) is None:
            times.append(None)
            continue
        new = row["round"] - rounds
        steps_s = (row["num_backwards"] - passes) / traffic.num_workers * step_s
        sent_s = link.seconds(traffic if before is None else traffic - before)
        total += steps_s + new * own_s + max(0.0, sent_s - new * hidden_s)
        rounds, passes, before = row["round"], row["num_backwards"], traffic
        times.append(total)
    return times
