"""Every worker is the server of a slice of the vector: messages are cut, and answers come back from all.

A worker sends the others their pieces, (M − 1)/M of its message, and each of them its slice's answer, padded to the
longest. Of dense messages these are, but for the padding, as many bytes as a ring all-reduce sends. Rows of a slice are
added up in rank order, so that the bits are those of the simulation.
"""

import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist

from bench.collectives.collective import Collective, Exchange, Schemas, Serve, Served, refuse_overflow
from bench.collectives.processes import ProcessWorld
from bench.collectives.report import Report
from bench.wire.message import Message

UNIT = 64  # entries; slices begin at multiples of it, so that packed signs are cut at bytes


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
        self.rank = world.local_ranks[0]
        self.cuts = slice_bounds(dim, world.size)
        self.slices = list(pairwise(self.cuts))
        self.bounds = self.slices[self.rank]
        self._known: dict[str, tuple[Message, list[Message]]] = {}

    def exchange(self, report: Report, message: Message | None, schemas: Schemas, serve: Serve, round: int) -> Exchange:
        pieces = self._cut(message)
        report = report._replace(num_bytes=np.array([sum(map(len, pieces))]))
        with self.world.noticing_loss(f"round {round}: "):
            told = np.concatenate([report.pack(), [[len(piece) for piece in pieces]]], axis=1)
            table = self.world.all_gather(told)
            everyone, sizes = Report.unpack(table[:, : -self.world.size]), table[:, -self.world.size :].astype(int)
            everyone.refuse(round)
            started = time.perf_counter()
            arrived = self._swap(pieces, sizes[:, self.rank].tolist())
            at_owner = time.perf_counter()
        served = self._serve(everyone, arrived, schemas.uploads, serve)
        with self.world.noticing_loss(f"round {round}: "):
            payload = np.empty(0, np.uint8) if served is None else served.answer.encode(0)
            ready = time.perf_counter()
            headers = self.world.all_gather(self._header(served, payload))
            broken = np.flatnonzero(headers[:, 2:].any(axis=0)).tolist()
            refuse_overflow(bool(headers[:, 1].all()), broken, round)
            answered = self._collect(payload, headers[:, 0].astype(int).tolist())
            measured_s = (at_owner - started) + (time.perf_counter() - ready)
        return Exchange(everyone, self._joined(answered, schemas.answers), measured_s)

    def _cut(self, message: Message | None) -> list[np.ndarray]:
        """The bytes for every owner."""
        if message is None:
            return [np.empty(0, np.uint8)] * self.world.size
        pieces = zip(message.cut(self.cuts), self.slices, strict=True)
        return [piece.encode(0) if end > start else np.empty(0, np.uint8) for piece, (start, end) in pieces]

    def _schemas(self, whose: str, schema: Message) -> list[Message]:
        """A schema of each slice: cut once for as long as that of the whole stays the same."""
        if whose not in self._known or self._known[whose][0] is not schema:
            self._known[whose] = schema, schema.cut(self.cuts)
        return self._known[whose][1]

    def _swap(self, pieces: Sequence[np.ndarray], sizes: list[int]) -> list[np.ndarray]:
        """Pieces for every owner -> those of every worker for this one, of these sizes."""
        outgoing = torch.from_numpy(np.concatenate(pieces)).to(self.world.device)
        incoming = outgoing.new_empty(sum(sizes))
        dist.all_to_all_single(incoming, outgoing, sizes, [len(piece) for piece in pieces])
        return [part.numpy() for part in incoming.cpu().split(sizes)]

    def _serve(self, everyone: Report, arrived: list[np.ndarray], schema: Message, serve: Serve) -> Served | None:
        """What this slice's server makes of the pieces; None of no entries."""
        start, end = self.bounds
        if start == end:
            return None
        payloads = [arrived[rank] for rank in np.flatnonzero(everyone.uploaded).tolist()]
        piece = self._schemas("uploads", schema)[self.rank]
        return serve(everyone.uploaded, piece.decode(payloads) if payloads else None)

    def _header(self, served: Served | None, payload: np.ndarray) -> np.ndarray:
        """(1, 2 + M): the bytes of an answer, whether it is finite, and whose pieces are not."""
        header = np.zeros((1, 2 + self.world.size))
        header[0, :2] = len(payload), served is None or served.finite
        if served is not None:
            header[0, [2 + rank for rank in served.broken]] = 1
        return header

    def _collect(self, payload: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
        """The answers of all owners, of these sizes; the others are padded to the longest on their way."""
        own = np.zeros(max(sizes), np.uint8)
        own[: len(payload)] = payload
        sent = torch.from_numpy(own).to(self.world.device)
        table = sent.new_empty(self.world.size, len(own))
        dist.all_gather(list(table.unbind()), sent)
        return [row[:size] for row, size in zip(table.cpu().numpy(), sizes, strict=True)]

    def _joined(self, payloads: Sequence[np.ndarray], answers: Message) -> Message:
        """The answer of all slices."""
        there = zip(self._schemas("answers", answers), payloads, self.slices, strict=True)
        return answers.joined([schema.decode([payload]) for schema, payload, (start, end) in there if end > start])
