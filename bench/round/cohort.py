"""One round, from start to end. Read this file first."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.collectives.report import Report
from bench.collectives.world import World
from bench.gradients.engines import RowGradients, WorkerGradients
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.link import LinkModel
from bench.round.ledger import Ledger
from bench.round.rates import LaggedRate, Rate
from bench.round.server import Server
from bench.round.workers import Workers
from bench.rules import View


class Cohort:
    """M workers and their server: the state of a recipe, and the round that they run together.

    Args:
        algorithm: the recipe.
        world: where the workers run.
        link: models the seconds that messages take on a network.
        layout: of the parameters.
        seed: of the draws of compressors and adversaries, together with round and rank.
        adversary: what Byzantine workers send, if there are any.

    Raises:
        InputError: the link cannot carry the recipe's messages; differences would grow; no worker would be honest.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        world: World,
        link: LinkModel,
        layout: Layout,
        seed: int = 0,
        adversary: Adversary | None = None,
    ) -> None:
        segments, vector = layout.segments(algorithm.granularity), layout.vector
        link.refuse(algorithm)
        algorithm.refuse(segments)
        if adversary is not None:
            adversary.refuse(world.size)
        self.algorithm, self.world, self.link, self.seed, self.adversary = algorithm, world, link, seed, adversary
        self.workers = Workers(algorithm, adversary, world.local_ranks, world.size, segments, vector, seed)
        self.server = Server(algorithm, world.size, segments, vector)
        self.lagged_rate = LaggedRate()
        self.ledger = Ledger()

    def round(
        self,
        parameters: Tensor,
        gradients: WorkerGradients,
        gradients_at: Callable[[Tensor, Sequence[Tensor]], RowGradients],
        learning_rate: float | Tensor,
        epoch: int,
        gauged: bool = False,
        fell_back: bool = False,
    ) -> tuple[Tensor, Report]:
        """Gradients of the local workers -> the direction (d,) for every worker, and all M reports.

        Args:
            parameters: (d,) w^t.
            gradients: of the L local workers, at w^t.
            gradients_at: (rows, parameters) -> gradients of those rows' batches at other parameters.
            learning_rate: γ, a number or a vector (d,), whose largest entry is used where one number is needed.
            epoch: from 0; thresholds follow the learning rate one epoch late.
            gauged: whether reports include the norms of gradients and compression errors; this takes further passes.
            fell_back: whether this process had to switch its engine to the loop, so that all must.

        Raises:
            InputError: workers have different learning rates. In every process alike.
            NonFiniteError: a worker's loss or message is NaN or infinite. In every process alike.
        """
        workers, server, world, rule = self.workers, self.server, self.world, self.algorithm.rule
        t, rate = self.ledger.rounds, Rate(learning_rate)
        latest, lagged = self.lagged_rate.follow(rate.largest, epoch)
        share = self.algorithm.aggregator.weight(world.size)
        view = View(
            round=t,
            num_workers=world.size,
            learning_rate=None if latest is None else latest * share,
            lagged_rate=None if lagged is None else lagged * share,
            stands=workers.stand(rate) is not None,
            parameters=parameters,
            past=workers.past,
            gradients=gradients,
            gradients_at=gradients_at,
            num_backwards=torch.full((len(workers.ranks),), gradients.num_backwards),
            would_send=partial(workers.would_send, gradients, rate, server.uplink, t),
        )
        # 1. Who uploads?
        uploaded = rule.should_upload(view)
        # 2. What do they send? Those that skip keep their state.
        sent = workers.send(gradients, uploaded, rate, server.uplink, t, world.maximum, gauged)
        rule.finish_round(view, uploaded)
        # 3. The messages of all workers, in rank order.
        report = workers.report(sent, gradients.losses, view.num_backwards, rate, fell_back)
        arrived = world.exchange(report, sent.message, server.schema, t)
        arrived.report.refuse(t)
        # 4. The server's answer.
        answer = server.answer(arrived, rate.largest, latest or 1.0, Noise(self.seed, t, world.size))
        # 5. The ledger.
        seconds = arrived.measured_s + sent.agreement_s
        self.ledger.record(arrived.report, answer, self.link, workers.offer_bits, rule.adaptive, seconds)
        server.follow(answer)
        return answer.dense()[0], arrived.report
