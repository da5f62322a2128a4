"""One round, from start to end. Read this file first."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.collectives.choice import make_collective
from bench.collectives.report import Report
from bench.collectives.world import World
from bench.gradients.engines import RowGradients, WorkerGradients
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.round.codes import Codes
from bench.round.known import Known
from bench.round.ledger import Ledger
from bench.round.rates import LaggedRate, Rate
from bench.round.server import Server
from bench.round.workers import Workers


class Cohort:
    """M workers and their server: the state of a recipe, and the round that they run together.

    Args:
        algorithm: the recipe.
        world: where the workers run.
        layout: of the parameters.
        seed: of the draws of compressors and adversaries, together with round and rank.
        adversary: what Byzantine workers send, if there are any.
        collective: how messages travel between processes: "auto", "sharded", "gather" or "allreduce".

    Raises:
        InputError: the collective cannot carry the recipe's messages; differences would grow; no worker would be
            honest.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        world: World,
        layout: Layout,
        seed: int = 0,
        adversary: Adversary | None = None,
        collective: str = "auto",
    ) -> None:
        segments, vector = layout.segments(algorithm.granularity), layout.vector
        algorithm.refuse(segments)
        if adversary is not None:
            adversary.refuse(world.size)
        self.algorithm, self.world, self.seed, self.adversary = algorithm, world, seed, adversary
        self.known = Known(algorithm, vector)
        self.workers = Workers(
            algorithm, adversary, world.local_ranks, world.size, segments, vector, seed, self.known.lead
        )
        self.codes = Codes(algorithm, segments, vector)
        self.collective = make_collective(collective, world, algorithm, self.codes, segments, vector)
        sliced = len(self.collective.slices) > 1
        self.server = Server(algorithm, world.size, self.codes, self.collective.bounds if sliced else None)
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
        workers, codes, world, rule = self.workers, self.codes, self.world, self.algorithm.rule
        t, rate = self.ledger.rounds, Rate(learning_rate)
        latest, lagged = self.lagged_rate.follow(rate.largest, epoch)
        # 1. Who uploads?
        view = workers.view(parameters, gradients, gradients_at, rate, latest, lagged, codes.uplink, t)
        uploaded = rule.should_upload(view)
        # 2. What do they send? Those that skip keep their state.
        sent = workers.send(gradients, uploaded, rate, codes.uplink, t, world.maximum, gauged)
        rule.finish_round(view, uploaded)
        report = workers.report(sent, gradients.losses, view.num_backwards, rate, fell_back, world.asks)
        # 3. Messages travel, each server answers its slice of the vector, and the answers travel back.
        noise = Noise(self.seed, t, world.size, start=self.collective.bounds[0])
        serve = partial(self.server.serve, rate=rate, latest=latest or 1.0, noise=noise)
        crossed = self.collective.exchange(report, sent.message, codes, serve, t)
        # 4. The ledger.
        transit = sent.agreement + crossed.transit
        self.ledger.record(crossed.report, crossed.answer, workers.offer_bits, rule.adaptive, transit)
        exact = codes.uplink.exact and codes.downlink.exact
        codes.follow(crossed.answer)
        return self.known.direction(crossed.answer, t, exact), crossed.report
