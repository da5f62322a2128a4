"""The workers of this process: what each keeps from round to round, and how its gradient becomes its message."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.collectives.report import Report
from bench.collectives.transit import Transit
from bench.compressors import Compressor
from bench.compressors.base import Maximum, Segments
from bench.gradients.engines import RowGradients, WorkerGradients
from bench.kernels.noise import Noise
from bench.kernels.sums import wide
from bench.round.gauges import Gauges, Measured
from bench.round.rates import Rate, set_aside
from bench.rules import View
from bench.rules.past import Past
from bench.wire.dense import GradientMessage
from bench.wire.message import Message, concatenate


@dataclass
class Sent:
    """What the local workers send in a round.

    Attributes:
        uploaded: (L,) bool.
        message: one row per uploader; None if there are none.
        gauges: measurements of the round.
        agreement: what it took the workers to agree on how to compress.
    """

    uploaded: np.ndarray
    message: Message | None
    gauges: Gauges
    agreement: Transit


class Workers:
    """The state of L workers, one row each.

    Args:
        algorithm: the recipe.
        adversary: what Byzantine workers send, if there are any.
        ranks: of the L workers among all M.
        num_workers: M.
        segments: the parts that compressors treat separately.
        like: a vector (d,) of the parameters' dtype and device.
        seed: of the draws of compressors and adversaries, together with round and rank.
        lead: a gradient (1, d) -> what a worker would send of it, by what all know.

    Attributes:
        kept: (L, n, d) what the feedback keeps: errors, accumulators, momenta.
        past: the past of the workers, which the upload rule uses.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        adversary: Adversary | None,
        ranks: Sequence[int],
        num_workers: int,
        segments: Segments,
        like: Tensor,
        seed: int,
        lead: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    ) -> None:
        self.algorithm = algorithm
        self.adversary = adversary
        self.ranks = tuple(ranks)
        self.num_workers = num_workers
        self.segments = segments
        self.like = like
        self.seed = seed
        self.lead = lead
        self.kept = like.new_zeros(len(ranks), algorithm.feedback.num_vectors, like.numel())
        self.past = Past(algorithm.rule.memory(len(ranks), like), len(ranks))
        self.offer_bits = algorithm.compressor.offer_bits(segments, like)
        self._drafts: dict[int, tuple[Tensor, Message]] = {}  # what `would_send` compressed in this round, by row
        self._used: Message | None = None  # the last round's messages, which nobody reads any more
        # Reused, as fresh memory pages cost as much as the numbers in them.
        self._workspace = like.new_empty(len(ranks) if self.keeps_rows else 1, len(like))

    @property
    def together(self) -> bool:
        """Whether all uploaders compress at once. On accelerators, where launches cost more than work; on a CPU, each
        goes from gradient to message while its numbers are in the cache."""
        return self.like.device.type != "cpu"

    @property
    def keeps_rows(self) -> bool:
        """Whether every worker has a row of the workspace, as it is read again."""
        compressor = self.algorithm.compressor
        return compressor.keeps_input or compressor.agrees or self.algorithm.rule.drafts or self.together

    def view(
        self,
        parameters: Tensor,
        gradients: WorkerGradients,
        gradients_at: Callable[[Tensor, Sequence[Tensor]], RowGradients],
        rate: Rate,
        latest: float | None,
        lagged: float | None,
        compressor: Compressor,
        round: int,
    ) -> View:
        """What the upload rule may look at.

        Args:
            parameters: (d,) w^t.
            gradients: of all L, at w^t.
            gradients_at: (rows, parameters) -> gradients of those rows' batches at other parameters.
            rate: γ.
            latest: the last γ above 0; None where there was none yet.
            lagged: the same an epoch late.
            compressor: of this round.
            round: t.
        """
        share = self.algorithm.aggregator.weight(self.num_workers)
        return View(
            round=round,
            num_workers=self.num_workers,
            learning_rate=None if latest is None else latest * share,
            lagged_rate=None if lagged is None else lagged * share,
            stands=rate.standing(self.algorithm.units) is not None,
            parameters=parameters,
            past=self.past,
            gradients=gradients,
            gradients_at=gradients_at,
            num_backwards=torch.full((len(self.ranks),), gradients.num_backwards),
            would_send=partial(self.would_send, gradients, rate, compressor, round),
        )

    def send(
        self,
        gradients: WorkerGradients,
        uploaded: Tensor,
        rate: Rate,
        compressor: Compressor,
        round: int,
        maximum: Maximum,
        gauged: bool,
    ) -> Sent:
        """Compress the uploaders' messages and update what they keep. Workers that skip keep their state.

        Args:
            gradients: of all L.
            uploaded: (L,) bool.
            rate: γ.
            compressor: of this round.
            round: t.
            maximum: how processes agree on the largest of the values they offer.
            gauged: whether to measure the round.
        """
        rows = uploaded.nonzero()[:, 0]
        drafts, self._drafts = self._drafts, {}
        gauges = Measured(gradients) if gauged else Gauges(gradients)
        if self.algorithm.sends_gradients and self.adversary is None:
            message = GradientMessage(gradients, rows, self.like) if len(rows) else None
            if message is not None:
                gauges.sent_as_they_are(rows, message)
            return Sent(uploaded.numpy(), message, gauges, Transit())
        vectors, offered = partial(self._vector, gradients, rate), {}
        offers = (offered.setdefault(row, vectors(row)) for row in rows.tolist())
        compress, agreement = compressor.agree(offers, self.segments, self.like, maximum)
        if compressor.agrees:  # already compensated while agreeing
            vectors = offered.__getitem__
        messages = []
        standing = rate.standing(self.algorithm.units)
        with set_aside(self.kept.flatten(0, 1), standing):
            if standing is None and not compressor.agrees and drafts.keys() >= set(rows.tolist()):
                compressed = ((row, *drafts[row]) for row in rows.tolist())
            else:
                compressed = self._compressed(rows.tolist(), vectors, compressor, compress, round)
            for row, x, message in compressed:
                messages.append(self._corrupted(x, message, compress, self._noise(row, round)))
                gauges.compressed(row, x, message)
                self.algorithm.feedback.settle(self.kept[row], message)
        message = concatenate(messages) if messages else None
        self._used = message if compressor.reuses else None
        return Sent(uploaded.numpy(), message, gauges, agreement or Transit())

    def would_send(
        self, gradients: WorkerGradients, rate: Rate, compressor: Compressor, round: int, row: int
    ) -> tuple[Tensor, Tensor]:
        """‖C(x)‖² and ‖x − C(x)‖² of what one worker would send."""
        x = self._vector(gradients, rate, row)
        message = compressor.compress(x, self.segments, [self._noise(row, round)])
        if self.algorithm.rule.drafts:  # has a row of the workspace
            self._drafts[row] = x, message
        length = wide(message.dense()).square().sum()
        if compressor.lossless:
            return length, length - length  # NaN if it is not finite
        return length, wide(message.subtract_from(x.clone())).square().sum()

    def report(
        self, sent: Sent, losses: Tensor, num_backwards: Tensor, rate: Rate, fell_back: bool, asks: int
    ) -> Report:
        """The local workers' reports of a round.

        Args:
            sent: what `send` gave.
            losses: (L,).
            num_backwards: (L,) backward passes.
            rate: γ.
            fell_back: whether this process has switched its engine to the loop.
            asks: what it asks of all.
        """
        rows, num_rows, gauges = sent.uploaded, len(sent.uploaded), sent.gauges
        num_bits, num_bits_paper, num_bytes = np.zeros((3, num_rows), np.int64)
        broken = ~np.isfinite(loss := losses.double().cpu().numpy())
        if sent.message is not None:
            num_bits[rows] = sent.message.num_bits.cpu() + self.offer_bits
            num_bits_paper[rows] = self.algorithm.compressor.num_bits_paper(sent.message).cpu() + self.offer_bits
            broken[rows] |= ~sent.message.finite().cpu().numpy()
        return Report(
            uploaded=rows,
            num_bits=num_bits,
            num_bits_paper=num_bits_paper,
            num_bytes=num_bytes,
            num_backwards=num_backwards.numpy(),
            broken=broken,
            fell_back=np.full(num_rows, fell_back),
            damaged=np.zeros(num_rows, bool),
            asks=np.full(num_rows, asks),
            loss=loss,
            learning_rate=np.full(num_rows, rate.fingerprint),
            gradient_square=gauges.gradients,
            input_square=gauges.inputs,
            error_square=gauges.errors,
            bound=gauges.bounds,
        )

    def _compressed(
        self,
        rows: Sequence[int],
        vectors: Callable[[int], Tensor],
        compressor: Compressor,
        compress: Callable[..., Message],
        round: int,
    ) -> Iterator[tuple[int, Tensor, Message]]:
        """Each row with what it compresses, (1, d), and its message. `compress`: as the workers have agreed."""
        noise = [self._noise(row, round) for row in rows]
        if rows and self.together:
            inputs = [vectors(row) for row in rows]
            message = compress(torch.cat(inputs), self.segments, noise)
            yield from zip(rows, inputs, message.rows(), strict=True)
            return
        inputs = map(vectors, rows)
        if compressor.agrees:
            pairs = ((x, compress(x, self.segments, [origin])) for x, origin in zip(inputs, noise, strict=True))
        else:
            pairs = compressor.compress_each(inputs, self.segments, noise, self._used)
        for row, (x, message) in zip(rows, pairs, strict=True):
            yield row, x, message

    def _noise(self, row: int, round: int) -> Noise:
        return Noise(self.seed, round, self.ranks[row])

    def _vector(self, gradients: WorkerGradients, rate: Rate, row: int) -> Tensor:
        """(1, d): the compressor's input from one worker."""
        room = self._workspace[row, None] if self.keeps_rows else self._workspace
        update = self.lead(gradients.dense(torch.tensor([row]), out=room))
        if self.algorithm.units == "update":
            update.mul_(rate.value)
        return self.algorithm.feedback.compensate(update, self.kept[row])

    def _corrupted(self, x: Tensor, message: Message, compress: Callable[..., Message], noise: Noise) -> Message:
        """The message that is sent: the honest one, or a Byzantine worker's in its place. `x`: (1, d)."""
        if self.adversary is None or not self.adversary.controls(noise.rank, self.num_workers):
            return message
        honest = message.dense() if self.algorithm.compressor.repeats else x
        return compress(self.adversary.corrupt(honest, noise), self.segments, [noise])

    def state_dict(self) -> dict[str, Any]:
        """On the CPU: rows (L, …) by name under "rows", and what all workers share."""
        past = self.past
        rows = {
            "upload_rounds": past.upload_rounds,
            "sent_nothing": past.sent_nothing,
            "kept": self.kept,
            **past.memory,
        }
        return {
            "rows": {name: t.cpu() for name, t in rows.items()},
            "snapshots": {t: vector.cpu() for t, vector in past.snapshots.items()},
            "movements": past.movements,
        }

    def load_state_dict(self, state: dict) -> None:
        """Take the rows of this process's workers from the rows of all M."""
        past, device = self.past, self.like.device
        rows = {name: t[list(self.ranks)] for name, t in state["rows"].items()}
        past.upload_rounds = rows.pop("upload_rounds")
        past.sent_nothing = rows.pop("sent_nothing", past.sent_nothing)
        self.kept = rows.pop("kept", self.kept).reshape(self.kept.shape).to(device)  # (L, d), or none, in old states
        past.memory = {name: t.to(device) for name, t in rows.items()}
        needed = {*past.upload_rounds.tolist(), max(state["snapshots"], default=0)}
        past.snapshots = {t: v.to(device) for t, v in state["snapshots"].items() if t in needed}
        past.movements = list(state["movements"])
