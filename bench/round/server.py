"""The server of the whole vector or of a slice. Each process has one, which gets messages in rank order."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.algorithm import Algorithm
from bench.collectives.collective import Served
from bench.feedback import Differences
from bench.kernels.noise import Noise
from bench.round.codes import Codes
from bench.round.rates import Rate, set_aside
from bench.wire.added import AddedUp
from bench.wire.message import Message
from bench.wire.slices import cut_segments


class Server:
    """Keeps the last message of every worker where some may skip, and aggregates messages into the answer.

    Args:
        algorithm: the recipe.
        num_workers: M.
        codes: the compressors.
        bounds: where the entries that it serves begin and end; all of them if None.

    Attributes:
        last: M rows, the workers' last messages, where workers may skip; otherwise None.
        estimate: (s,) the aggregate as known to the server, s being the number of entries that it serves, where
            workers send differences and answers are more than the news; otherwise None.
        kept: (n, s) what the feedback of answers keeps: n is 0 without one.
    """

    def __init__(
        self, algorithm: Algorithm, num_workers: int, codes: Codes, bounds: tuple[int, int] | None = None
    ) -> None:
        start, end = self.bounds = bounds or (0, len(codes.like))
        like = codes.like[start:end]
        self.algorithm = algorithm
        self.codes = codes
        self.segments = codes.segments if bounds is None else cut_segments(codes.segments, start, end)[0]
        self.num_workers = num_workers
        self.like = like
        estimates = isinstance(algorithm.feedback, Differences) and not algorithm.answers_news
        self.last: Message | None = codes.kept(num_workers, bounds) if self.keeps_uploads(algorithm) else None
        self.upload_lr = torch.ones(num_workers, dtype=torch.float64)
        self.estimate = like.new_zeros(like.shape) if estimates else None
        num_vectors = algorithm.downlink_feedback.num_vectors if algorithm.downlink_feedback else 0
        self.kept = like.new_zeros(num_vectors, len(like))

    @staticmethod
    def keeps_uploads(algorithm: Algorithm) -> bool:
        """Whether it keeps last uploads: where workers may skip, but for differences, which its estimate contains."""
        return algorithm.rule.adaptive and not isinstance(algorithm.feedback, Differences)

    def serve(
        self,
        uploaded: np.ndarray,
        arrived: Message | None,
        rate: Rate,
        latest: float,
        noise: Noise,
    ) -> Served:
        """The row that every worker receives.

        Args:
            uploaded: (M,) bool.
            arrived: the uploaders' messages, in rank order; None if nobody's.
            rate: γ of this round.
            latest: the last γ above 0.
            noise: the server's.
        """
        messages = self.receive(uploaded, arrived, latest)
        answer = self.broadcast(messages, rate, noise)
        if answer.finite().all():
            return Served(answer, True, [])
        broken = []
        if messages is not None and not isinstance(messages, AddedUp):  # whose rows are gone
            # Rows are those of the uploaders if nothing older is kept, otherwise of all workers.
            ranks = np.flatnonzero(uploaded).tolist() if messages is arrived else range(self.num_workers)
            broken = [rank for rank, x in zip(ranks, messages.dense(), strict=True) if not x.isfinite().all()]
        return Served(answer, False, broken)

    def receive(self, uploaded: np.ndarray, arrived: Message | None, learning_rate: float) -> Message | None:
        """The messages for the answer: the last ones of all M workers, or those that arrived if none are kept.

        Args:
            uploaded: (M,) bool.
            arrived: the uploaders' messages, in rank order; None if there are none.
            learning_rate: the last γ above 0.
        """
        if self.last is None:
            return arrived
        if arrived is not None:
            self.last = self.last.put(ranks := np.flatnonzero(uploaded).tolist(), arrived)
            self.upload_lr[ranks] = learning_rate
        return self.last

    def broadcast(self, messages: Message | None, rate: Rate, noise: Noise) -> Message:
        """The messages from `receive` -> the one row that every worker receives.

        Args:
            messages: from `receive`; None if there are none.
            rate: γ of this round.
            noise: the server's.
        """
        algorithm = self.algorithm
        if isinstance(algorithm.feedback, Differences):
            share = algorithm.aggregator.weight(self.num_workers)
            total = self.like.new_zeros(self.like.shape) if messages is None else messages.sum().mul_(share)
            if self.estimate is not None:
                news, total = total, self.estimate + total
                self.estimate.add_(news, alpha=algorithm.feedback.rate)
        else:
            assert messages is not None
            weights = rate.largest / self.upload_lr if algorithm.stale_scale == "rescaled" else None
            total = algorithm.aggregator.aggregate(messages, weights, noise)
        return self._answer(total[None], rate, noise)

    def _answer(self, total: Tensor, rate: Rate, noise: Noise) -> Message:
        """Compress the aggregate (1, s), together with what earlier answers left out."""
        compress, feedback = self.codes.downlink.compress, self.algorithm.downlink_feedback
        if feedback is None:
            return compress(total, self.segments, [noise])
        standing = rate.standing(self.algorithm.units, self.bounds)
        if standing is not None:
            total[:, standing] = 0  # a sign sent for a zero means nothing there
        with set_aside(self.kept, standing):
            answer = compress(feedback.compensate(total, self.kept), self.segments, [noise])
            feedback.settle(self.kept, answer)
        return answer

    def state_dict(self) -> dict[str, Any]:
        return {
            "last": {} if self.last is None else self.last.tensors,
            "upload_lr": self.upload_lr,
            "estimate": self.estimate,
            "kept": self.kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state.get("kept", self.kept).to(self.like.device)  # none in old states
        if self.estimate is not None:
            self.estimate = state["estimate"].to(self.like.device)
        if self.last is not None:
            self.last = self.last.put(range(self.num_workers), self.last.with_tensors(state["last"]))
            self.upload_lr = state["upload_lr"]
