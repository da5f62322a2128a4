"""The mean of all workers' vectors outside of rounds, used for SVRG's anchors."""

import numpy as np
from torch import Tensor

from bench.collectives.collective import Dense, Served
from bench.collectives.report import Report
from bench.round.cohort import Cohort
from bench.wire.dense import DenseMessage
from bench.wire.message import Message


def average(cohort: Cohort, rows: Tensor, num_backwards: int) -> Tensor:
    """Gradients (L, d) of the local workers -> the mean (d,) of all M, sent dense and added to the ledger.

    Args:
        cohort: the workers.
        rows: their gradients.
        num_backwards: backward passes that each worker took for its gradient.

    Raises:
        NonFiniteError: a worker's gradient is NaN or infinite. In every process alike.
    """
    message, num_rows, ledger = DenseMessage(rows), len(rows), cohort.ledger
    (num_bits,), everyone = message.num_bits[:1].tolist(), np.ones(num_rows, bool)
    bits, broken = np.full(num_rows, num_bits), ~message.finite().cpu().numpy()
    passes = np.full(num_rows, num_backwards)
    unknown, none = np.full(num_rows, np.nan), np.zeros(num_rows, np.int64)
    report = Report(everyone, bits, bits, none, passes, broken, *[none > 0] * 3, *[unknown] * 6)

    def serve(uploaded: np.ndarray, messages: Message | None) -> Served:
        assert messages is not None
        return Served(DenseMessage((messages.sum() / cohort.world.size)[None]), True, [])

    crossed = cohort.collective.exchange(report, message, Dense(cohort.codes.like), serve, ledger.rounds)
    ledger.charge(crossed.report, num_bits, crossed.transit)
    return crossed.answer.dense()[0]
