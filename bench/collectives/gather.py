"""Every message is sent to everybody, and every process plays the whole server. The answer crosses nothing."""

import time

import numpy as np

from bench.collectives.collective import Exchange, Schemas, Serve, refuse_overflow
from bench.collectives.damage import decoded, refuse_sizes
from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.collectives.whole import Whole
from bench.wire.message import Message


class Gather(Whole):
    """Takes less time than slices where M − 1 messages are short, as one exchange does instead of two."""

    name = "gather"

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        payload = np.empty(0, np.uint8) if message is None else message.encode(0)
        report = report._replace(num_bytes=np.array([len(payload)]))
        with self.world.noticing_loss(f"round {round}: "):
            everyone, _, told = self.world.exchange_reports(report)
            everyone.refuse(round)
            refuse_sizes(everyone.num_bytes, self.bounds[1], f"round {round}:")
            started = time.perf_counter()
            arrived = self.world.swap([payload] * self.world.size, everyone.num_bytes.tolist())
            transit = told + Transit.to_all(everyone.num_bytes, measured_s=time.perf_counter() - started)
        payloads = {rank: arrived[rank] for rank in np.flatnonzero(everyone.uploaded).tolist()}
        with self.world.alarming(report):
            messages = decoded(schemas.uploads, payloads, f"round {round}:")
        served = serve(everyone.uploaded, messages)
        refuse_overflow(served.finite, served.broken, round)
        return Exchange(everyone, served.answer, transit)
