"""The server. Every process keeps a copy of it, which gets the same messages in the same order."""

import numpy as np
import torch
from torch import Tensor

from bench.algorithm import Algorithm
from bench.collectives.world import Exchange
from bench.compressors.base import Segments
from bench.errors import NonFiniteError
from bench.feedback import Differences
from bench.kernels.noise import Noise
from bench.wire.message import Message


class Server:
    """Keeps the last message of every worker where some may skip, and aggregates messages into the answer.

    Args:
        algorithm: the recipe.
        num_workers: M.
        segments: the parts that compressors treat separately.
        like: a tensor of the parameters' dtype and device.

    Attributes:
        uplink, downlink: the compressors of uploads and answers in this round.
        schema: a blank message of the kind that workers send in this round.
        estimate: (d,) the aggregate as known to the server, where workers send differences; otherwise None.
    """

    def __init__(self, algorithm: Algorithm, num_workers: int, segments: Segments, like: Tensor) -> None:
        self.algorithm = algorithm
        self.segments = segments
        self.num_workers = num_workers
        self.like = like
        self.uplink, self.downlink = algorithm.compressor, algorithm.broadcast
        self.schema = self.uplink.blank(1, segments, like)
        differ = isinstance(algorithm.feedback, Differences)
        # Old messages are used only where workers may skip; old differences are part of the estimate instead.
        keeps = algorithm.rule.adaptive and not differ
        self.last: Message | None = algorithm.compressor.blank(num_workers, segments, like) if keeps else None
        self.upload_lr = torch.ones(num_workers, dtype=torch.float64)
        self.estimate = like.new_zeros(like.shape) if differ else None

    def answer(self, arrived: Exchange, learning_rate: float, latest_rate: float, noise: Noise) -> Message:
        """The one row that every worker receives.

        Args:
            arrived: the reports of all M workers, and the uploaders' messages.
            learning_rate: γ of this round.
            latest_rate: the last γ above 0.
            noise: the server's.

        Raises:
            NonFiniteError: a message is NaN or infinite, or their aggregate is.
        """
        uploaded = arrived.report.uploaded
        messages = self.receive(uploaded, arrived.messages, latest_rate)
        answer = self.broadcast(messages, learning_rate, noise)
        if answer.finite().all():
            return answer
        broken = []
        if messages is not None:  # of the uploaders if nothing older is kept, otherwise of all workers
            ranks = np.flatnonzero(uploaded) if messages is arrived.messages else range(self.num_workers)
            broken = [rank for rank, x in zip(ranks, messages.dense(), strict=True) if not x.isfinite().all()]
        whose = f"the gradient of worker {', '.join(map(str, broken))}" if broken else "the workers' sum"
        raise NonFiniteError(f"round {noise.round}: {whose} is not finite: an overflow")

    def receive(self, uploaded: np.ndarray, arrived: Message | None, learning_rate: float) -> Message | None:
        """The messages for the answer: the last ones of all M workers, or those that arrived if none are kept.

        Args:
            uploaded: (M,) bool.
            arrived: the uploaders' messages, in rank order; None if there are none.
            learning_rate: γ of this round.
        """
        if self.last is None:
            return arrived
        if arrived is not None:
            self.last = self.last.put(ranks := np.flatnonzero(uploaded).tolist(), arrived)
            self.upload_lr[ranks] = learning_rate
        return self.last

    def broadcast(self, messages: Message | None, learning_rate: float, noise: Noise) -> Message:
        """The messages from `receive` -> the one row that every worker receives. `noise`: the server's."""
        algorithm = self.algorithm
        if isinstance(algorithm.feedback, Differences):
            assert self.estimate is not None
            share = algorithm.aggregator.weight(self.num_workers)
            news = self.like.new_zeros(self.like.shape) if messages is None else messages.sum().mul_(share)
            total = self.estimate + news
            self.estimate.add_(news, alpha=algorithm.feedback.rate)
        else:
            assert messages is not None
            weights = learning_rate / self.upload_lr if algorithm.stale_scale == "rescaled" else None
            total = algorithm.aggregator.aggregate(messages, weights, noise)
        return self.downlink.compress(total[None], self.segments, [noise])

    def follow(self, answer: Message) -> None:
        """Advance to the next round: its compressors may depend on the answer in this one."""
        alike = self.downlink == self.uplink
        self.uplink = self.uplink.after(answer, self.segments)
        self.downlink = self.uplink if alike else self.downlink.after(answer, self.segments)
        if self.uplink.follows:
            self.schema = self.uplink.blank(1, self.segments, self.like)

    def state_dict(self) -> dict[str, object]:
        return {
            "last": {} if self.last is None else self.last.tensors,
            "upload_lr": self.upload_lr,
            "estimate": self.estimate,
            "uplink": self.uplink.state_dict(),
            "downlink": self.downlink.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.uplink, self.downlink = (
            compressor.restored(kept, self.like.device) if (kept := state.get(name)) else compressor
            for name, compressor in (("uplink", self.uplink), ("downlink", self.downlink))
        )
        self.schema = self.uplink.blank(1, self.segments, self.like)
        if self.estimate is not None:
            self.estimate = state["estimate"].to(self.like.device)
        if self.last is not None:
            self.last = self.last.put(range(self.num_workers), self.last.with_tensors(state["last"]))
            self.upload_lr = state["upload_lr"]
