"""What a worker's own work takes in a round, and what its messages weigh: measured here, on gradients of a model."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.algorithm import Algorithm
from bench.collectives.damage import decoded
from bench.collectives.sharded import slice_bounds
from bench.collectives.transit import Transit
from bench.gradients.engines.loop import DenseGradients
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.round.codes import Codes
from bench.round.rates import Rate
from bench.round.server import Server
from bench.round.workers import Sent, Workers
from bench.wire.added import AddedUp
from bench.wire.message import Message

WARM, TIMES = 1, 5


@dataclass(frozen=True)
class Work:
    """One recipe's round, for one number of workers.

    Attributes:
        upload_bits: of the longest message.
        offer_bits: what each worker tells before it compresses, to agree with the others.
        answer_bits: of the server's answer.
        seconds: by collective that can carry the recipe, what a worker spends to compress and encode its message, and
            to decode, add up, answer and expand what it receives.
    """

    upload_bits: int
    offer_bits: int
    answer_bits: int
    seconds: Mapping[str, float]


def measure(algorithm: Algorithm, gradients: Tensor, layout: Layout, num_workers: int, gathers: bool = True) -> Work:
    """Run a recipe's parts on gradients of so many workers.

    Args:
        algorithm: the recipe.
        gradients: (m, d) of different batches; if m < M, they stand for others as well, but the answer's size is that
            of m workers' messages.
        layout: of the parameters.
        num_workers: M.
        gathers: whether to time the decoding of all messages whole, for which memory grows as M · d.

    Raises:
        InputError: the recipe cannot treat such a vector.
    """
    algorithm = algorithm.settled
    segments, like = layout.segments(algorithm.granularity), layout.vector
    algorithm.refuse(segments)
    codes, rate = Codes(algorithm, segments, like), Rate(0.01)
    workers = Workers(algorithm, None, range(len(gradients)), num_workers, segments, like, seed=0)
    rows = DenseGradients(torch.ones(len(gradients)), gradients)
    everyone = torch.ones(len(gradients), dtype=torch.bool)

    def send(round: int) -> Sent:
        return workers.send(rows, everyone, rate, codes.uplink, round, lambda offered: (offered, Transit()), False)

    send_s = _timed(send, TIMES) / len(gradients)
    message = send(WARM + TIMES).message
    assert message is not None
    ready = _Messages(algorithm, codes, rate, message, num_workers)
    seconds = {"gather": send_s + ready.gathered_s()} if gathers else {}
    answer = ready.answer()
    if message.cuttable and answer.cuttable and algorithm.entrywise:
        seconds["sharded"] = send_s + ready.sharded_s(answer)
    if algorithm.adds_up:
        seconds["ring"] = send_s + ready.summed_s()
        seconds.setdefault("sharded", seconds["ring"])
    return Work(int(message.num_bits.max()), workers.offer_bits, int(answer.num_bits), seconds)


class _Messages:
    """The messages of M workers, and the times to have them answered."""

    def __init__(self, algorithm: Algorithm, codes: Codes, rate: Rate, message: Message, num_workers: int) -> None:
        self.algorithm, self.codes, self.rate = algorithm, codes, rate
        self.message = message
        self.num_workers = num_workers
        self.dim = len(codes.like)
        self.everyone = np.ones(num_workers, bool)

    def answer(self) -> Message:
        """Of the server of the whole vector, to the messages that there are."""
        server = Server(self.algorithm, self.message.num_rows, self.codes)
        return self._serve(server, np.ones(self.message.num_rows, bool), self.message)

    def gathered_s(self) -> float:
        """Encode one message, decode all, answer as the server of the whole vector, expand the answer."""
        server = Server(self.algorithm, self.num_workers, self.codes)
        payloads = self._all([self.message.encode(row) for row in range(self.message.num_rows)])

        def work(_: int) -> None:
            self.message.encode(0)
            self._serve(server, self.everyone, decoded(self.codes.uploads, payloads, "")).dense()

        return _timed(work, TIMES)

    def sharded_s(self, answer: Message) -> float:
        """Encode the pieces of one message, serve a slice, decode all slices' answers, expand them."""
        bounds = slice_bounds(self.dim, self.num_workers)
        here = 0, bounds[1]
        server = Server(self.algorithm, self.num_workers, self.codes, here)
        schema = self.codes.uploads.cut(bounds)[0]
        piece = self.message.cut(bounds)[0]
        payloads = self._all([piece.encode(row) for row in range(piece.num_rows)])
        filled = [end > start for start, end in pairwise(bounds)]
        schemas = self.codes.answers.cut(bounds)
        returned = [part.encode(0) for part, there in zip(answer.cut(bounds), filled, strict=True) if there]

        def work(_: int) -> None:
            for part, there in zip(self.message.cut(bounds), filled, strict=True):
                if there:
                    part.encode(0)
            self._serve(server, self.everyone, decoded(schema, payloads, "")).encode(0)
            parts = [s.decode([row]) for s, row in zip(schemas, returned, strict=False)]
            self.codes.answers.joined(parts).dense()

        return _timed(work, TIMES)

    def summed_s(self) -> float:
        """Answer the sum of all messages, and expand the answer."""
        server = Server(self.algorithm, self.num_workers, self.codes)
        one = self.codes.uploads.decode([self.message.encode(0)])
        return _timed(lambda _: self._serve(server, self.everyone, AddedUp(one, self.num_workers)).dense(), TIMES)

    def _serve(self, server: Server, uploaded: np.ndarray, messages: Message | None) -> Message:
        noise = Noise(0, 0, self.num_workers)
        return server.serve(uploaded, messages, rate=self.rate, latest=1.0, noise=noise).answer

    def _all(self, payloads: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        return {rank: payloads[rank % len(payloads)] for rank in range(self.num_workers)}


def rounded_s(gradient: Tensor, dtype: torch.dtype) -> float:
    """Seconds to round a gradient (d,) to another format and back, as DDP's hooks do around their all-reduce."""
    if dtype == gradient.dtype:
        return 0.0
    bucket, answer = gradient.to(dtype), gradient.clone()  # whose memory is kept, as DDP keeps its buckets
    return _timed(lambda _: answer.copy_(bucket.copy_(gradient)), TIMES)


def _timed(work: Callable[[int], Any], times: int) -> float:
    """The least seconds of a call, which gets its number, after warm-up calls: what else runs only adds to them."""
    took = []
    for number in range(WARM + times):
        started = time.perf_counter()
        work(number)
        took.append(time.perf_counter() - started)
    return min(took[WARM:])
