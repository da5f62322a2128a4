"""Every worker is the server of a slice of the vector: messages are cut, and answers come back from all.

A worker sends each other one its piece, (M − 1)/M of its message in all, and its slice's answer. Of dense messages
these are as many bytes as a ring all-reduce sends. Rows of a slice are added up in rank order, so that the bits are
those of the simulation.
"""

import time
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from bench.collectives.collective import Collective, Exchange, Schemas, Serve, Served, refuse_overflow
from bench.collectives.damage import decoded, refuse_sizes
from bench.collectives.header import Header, broken_in, wait_for_slowest
from bench.collectives.processes import ProcessWorld
from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.errors import DamagedError
from bench.wire.message import Message

UNIT = 64  # entries; slices begin at multiples of it, so that packed signs are cut at bytes
SIZE = np.dtype(np.int64)
NOTHING = np.empty(0, np.uint8)


def slice_bounds(dim: int, num_workers: int) -> list[int]:
    """Where M slices of d entries begin, and d; the last ones are empty where there are not enough entries."""
    size = -(-dim // (UNIT * num_workers)) * UNIT
    return [min(size * rank, dim) for rank in range(num_workers)] + [dim]


class Sharded(Collective):
    """For messages that can be cut, answered entry by entry.

    Args:
        world: the processes.
        dim: d.
    """

    name = "sharded"

    def __init__(self, world: ProcessWorld, dim: int) -> None:
        self.world = world
        self.cuts = slice_bounds(dim, world.size)
        self.slices = list(pairwise(self.cuts))
        self.bounds = self.slices[world.rank]
        self._uploads = Pieces(self.cuts)
        self._answers = Pieces(self.cuts)

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        pieces, rank = self._encoded(message), self.world.rank
        report = report._replace(num_bytes=np.array([sum(map(len, pieces))]))
        with self.world.noticing_loss(f"round {round}: "):
            everyone, sizes, told = self.world.exchange_reports(report, list(map(len, pieces)))
            everyone.refuse(round)
            for column, (start, end) in zip(sizes.T, self.slices, strict=True):
                refuse_sizes(column, end - start, f"round {round}:")
            started = time.perf_counter()
            arrived = self.world.swap(pieces, sizes[:, rank].tolist())
            at_owner = time.perf_counter()
        served, damage = None, None
        try:
            served = self._serve(everyone, arrived, self._uploads.of(schemas.uploads)[rank], serve, round)
        except DamagedError as error:
            damage = str(error)
        with self.world.noticing_loss(f"round {round}: "):
            payload = NOTHING if served is None else served.answer.encode(0)
            ready = time.perf_counter()
            answers = self._answers.of(schemas.answers)
            header = Header.of(served, self.world.size, ready - at_owner, damage is not None)
            headers, payloads = self._returned(header, payload, answers, round)
            self.world.end_if_damaged(any(header.damaged for header in headers), damage)
            idle_s = wait_for_slowest(headers, header)
            back_s = time.perf_counter() - ready - idle_s
        refuse_overflow(all(header.finite for header in headers), broken_in(headers), round)
        transit = told + Transit.in_pieces(sizes, at_owner - started)
        around = Header.num_bytes(self.world.size) + (0 if answers[0].fixed_size else SIZE.itemsize)
        num_bytes = np.array(list(map(len, payloads))) + around
        transit += Transit.to_all(num_bytes, waited_s=max(0.0, idle_s), measured_s=max(0.0, back_s))
        with self.world.alarming(report, self.world.size):
            parts = [
                decoded(answers[owner], {owner: payloads[owner]}, f"round {round}: answer of")
                for owner, (start, end) in enumerate(self.slices)
                if end > start
            ]
        return Exchange(everyone, schemas.answers.joined([part for part in parts if part is not None]), transit)

    def _encoded(self, message: Message | None) -> list[np.ndarray]:
        """The bytes for every owner."""
        if message is None:
            return [NOTHING] * self.world.size
        pieces = zip(message.cut(self.cuts), self.slices, strict=True)
        return [piece.encode(0) if end > start else NOTHING for piece, (start, end) in pieces]

    def _serve(
        self, everyone: Report, arrived: list[np.ndarray], piece: Message, serve: Serve, round: int
    ) -> Served | None:
        """What this slice's server makes of the pieces; None of no entries."""
        start, end = self.bounds
        if start == end:
            return None
        payloads = {rank: arrived[rank] for rank in np.flatnonzero(everyone.uploaded).tolist()}
        return serve(everyone.uploaded, decoded(piece, payloads, f"round {round}:"))

    def _returned(
        self, header: Header, payload: np.ndarray, answers: Sequence[Message], round: int
    ) -> tuple[list[Header], list[np.ndarray]]:
        """Every owner's header and answer. Sizes that depend on the data are told first."""
        own, head = np.concatenate([header.pack(), payload]), Header.num_bytes(self.world.size)
        if answers[0].fixed_size:
            sizes = np.array([head + size for size in self._answers.sizes])
            if header.damaged:
                own = np.concatenate([own, np.zeros(sizes[self.world.rank] - head, np.uint8)])
        else:
            sizes = self.world.all_gather(np.array([len(own)], SIZE))[:, 0]
            refuse_sizes(sizes, max(end - start for start, end in self.slices), f"round {round}: answer of", head)
        back = self.world.swap([own] * self.world.size, sizes.tolist())
        return [Header.unpack(row[:head]) for row in back], [row[head:] for row in back]


class Pieces:
    """The schemas of every slice: cut once for as long as that of the whole stays the same. `cuts`: the bounds."""

    def __init__(self, cuts: Sequence[int]) -> None:
        self.cuts = cuts
        self._whole: Message | None = None
        self._cut: list[Message] = []

    def of(self, whole: Message) -> list[Message]:
        if self._whole is not whole:
            self._whole, self._cut = whole, whole.cut(self.cuts)
            self.__dict__.pop("sizes", None)
        return self._cut

    @cached_property
    def sizes(self) -> list[int]:
        """The bytes of each, where all messages of a schema take as many."""
        there = zip(self._cut, pairwise(self.cuts), strict=True)
        return [len(schema.encode(0)) if end > start else 0 for schema, (start, end) in there]
