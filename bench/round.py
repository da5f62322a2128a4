"""One round, top to bottom. Read this file first."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.compressors import Agreeing, Identity
from bench.engines import RowGradients, WorkerGradients
from bench.errors import InputError, NonFiniteError
from bench.gauges import Gauges
from bench.layout import Layout
from bench.ledger import Ledger, Report
from bench.link import LinkModel
from bench.message import DenseMessage, GradientMessage, Message, concatenate
from bench.noise import Noise
from bench.rules import LaggedRate, View
from bench.server import Server
from bench.worker import Workers
from bench.world import World


class Cohort:
    """M workers and their server: the state of a recipe, and the one thing they do together.

    Args:
        algorithm: the recipe.
        world: where the workers are.
        link: what their messages take on a modelled network.
        layout: of the parameters.
        seed: of what compressors and adversaries draw, together with round and rank.
        adversary: what Byzantine workers do, if there are any.

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
        link.refuse(algorithm)
        algorithm.refuse(layout.segments(algorithm.granularity))
        if adversary is not None:
            adversary.refuse(world.size)
        vector, num_rows = layout.vector, len(world.local_ranks)
        kept = vector.new_zeros(num_rows, algorithm.feedback.num_vectors, vector.numel())
        self.seed = seed
        self.adversary = adversary
        self.algorithm = algorithm
        self.world = world
        self.link = link
        self.segments = layout.segments(algorithm.granularity)
        self.workers = Workers(world.local_ranks, kept, algorithm.rule.memory(num_rows, vector))
        self.server = Server(algorithm, world.size, self.segments, vector)
        self.lagged_rate = LaggedRate()
        self.ledger = Ledger()
        self.vector = vector
        compressor = algorithm.compressor
        shared = isinstance(compressor, Agreeing) and compressor.shared
        self.offer_bits = shared * len(self.segments) * 8 * vector.element_size()
        self.workspace = torch.empty_like(vector)[None]  # kept: fresh pages cost as much as the numbers in them

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
            learning_rate: γ, one or a vector (d,), of which the largest counts where one is needed.
            epoch: from 0; thresholds follow the learning rate an epoch late.
            gauged: whether the reports tell how long gradients and compression errors are; that takes further passes.
            fell_back: whether this process has had to take the loop for its engine, and so shall all.

        Raises:
            InputError: workers have different learning rates. In every process alike.
            NonFiniteError: a worker's loss or message is NaN or infinite. In every process alike.
        """
        algorithm, workers, ledger = self.algorithm, self.workers, self.ledger
        if isinstance(learning_rate, Tensor):
            weights = torch.linspace(1, 2, len(learning_rate), dtype=torch.float64, device=learning_rate.device)
            rate, told = float(learning_rate.max()), float((learning_rate * weights).mean())
        else:
            rate = told = learning_rate
        num_backwards = torch.full((len(workers.ranks),), gradients.num_backwards)
        share = algorithm.aggregator.weight(self.world.size)
        latest, lagged = self.lagged_rate.follow(rate, epoch)
        view = View(
            round=ledger.rounds,
            num_workers=self.world.size,
            learning_rate=None if latest is None else latest * share,
            lagged_rate=None if lagged is None else lagged * share,
            stands=self._still(learning_rate) is not None,
            parameters=parameters,
            workers=workers,
            gradients=gradients,
            gradients_at=gradients_at,
            num_backwards=num_backwards,
            would_send=partial(self._draft, gradients, learning_rate),
        )
        # 1. Who uploads?
        uploaded = algorithm.rule.should_upload(view)
        # 2. What do they send? Those who skip stand still.
        gauges = Gauges(gradients) if gauged else None
        message, agreement_s = self._compress(gradients, uploaded.nonzero()[:, 0], learning_rate, gauges)
        algorithm.rule.finish_round(view, uploaded)
        # 3. The messages of all workers, in rank order.
        report = self._report(uploaded, message, gradients.losses, num_backwards, gauges, told, fell_back)
        arrived = self.world.exchange(report, message, self.server.schema, ledger.rounds)
        report = arrived.report
        if not report.agrees():
            first, *others = report.learning_rate
            rank = next(rank for rank, other in enumerate(others, start=1) if other != first)
            raise InputError(
                f"round {ledger.rounds}: lr: worker {rank} has {report.learning_rate[rank]:g}; worker 0 has {first:g}, "
                "all need the same"
            )
        if report.broken.any():
            ranks = ", ".join(map(str, np.flatnonzero(report.broken)))
            losses = ", ".join(f"{loss:g}" for loss in report.loss[report.broken])
            raise NonFiniteError(
                f"round {ledger.rounds}: worker {ranks}: loss {losses}: loss or gradient is not finite"
            )
        # 4. The server's answer.
        messages = self.server.receive(report.uploaded, arrived.messages, latest or 1.0)
        broadcast = self.server.broadcast(messages, rate, Noise(self.seed, ledger.rounds, self.world.size))
        if not broadcast.finite().all():
            broken = []
            if messages is not None:  # of differences those of uploaders, otherwise everybody's
                ranks = np.flatnonzero(report.uploaded) if messages is arrived.messages else range(self.world.size)
                broken = [rank for rank, x in zip(ranks, messages.dense(), strict=True) if not x.isfinite().all()]
            whose = f"the gradient of worker {', '.join(map(str, broken))}" if broken else "the workers' sum"
            raise NonFiniteError(f"round {ledger.rounds}: {whose} is not finite: an overflow")
        # 5. The account.
        downlink_bits = int(broadcast.num_bits)
        control_bits = self.world.size if algorithm.rule.adaptive else 0
        offered = self.offer_bits * report.uploaded
        modelled_s = self.link.seconds((report.num_bits - offered).tolist(), downlink_bits)
        if offered.any():  # an exchange of its own
            modelled_s += self.link.seconds(offered.tolist(), self.offer_bits)
            downlink_bits += self.offer_bits
        measured_s = arrived.measured_s + agreement_s
        ledger.record(report, broadcast.kind, downlink_bits, control_bits, modelled_s, measured_s)
        self.server.follow(broadcast)
        return broadcast.dense()[0], report

    def average(self, rows: Tensor, num_backwards: int) -> Tensor:
        """Gradients (L, d) of the local workers -> the mean (d,) of all M, sent dense and accounted for.

        Args:
            num_backwards: passes that each worker took for its own.

        Raises:
            NonFiniteError: a worker's gradient is NaN or infinite. In every process alike.
        """
        message, num_rows, ledger = DenseMessage(rows), len(rows), self.ledger
        (num_bits,), everyone = message.num_bits[:1].tolist(), np.ones(num_rows, bool)
        bits, broken = np.full(num_rows, num_bits), ~message.finite().cpu().numpy()
        passes = np.full(num_rows, num_backwards)
        unknown, none = np.full(num_rows, np.nan), np.zeros(num_rows, np.int64)
        report = Report(everyone, bits, bits, none, passes, broken, none > 0, *[unknown] * 6)
        arrived = self.world.exchange(report, message, message, ledger.rounds)
        if arrived.report.broken.any():
            ranks = ", ".join(map(str, np.flatnonzero(arrived.report.broken)))
            raise NonFiniteError(f"round {ledger.rounds}: worker {ranks}: its full gradient is not finite")
        assert arrived.messages is not None
        modelled_s = self.link.seconds(arrived.report.num_bits.tolist(), num_bits)
        ledger.charge(arrived.report, num_bits, 0, modelled_s, arrived.measured_s)
        return arrived.messages.sum() / self.world.size

    def _compress(
        self, gradients: WorkerGradients, rows: Tensor, learning_rate: float | Tensor, gauges: Gauges | None
    ) -> tuple[Message | None, float]:
        """The uploaders' messages, and the seconds it took workers to agree; what they keep moves on."""
        algorithm, compressor, kept = self.algorithm, self.server.uplink, self.workers.kept
        if algorithm.sends_gradients and self.adversary is None:
            message = GradientMessage(gradients, rows, self.vector) if len(rows) else None
            if gauges and message:
                gauges.sent_as_they_are(rows, message)
            return message, 0.0
        vectors = partial(self._vector, gradients, learning_rate)
        compress, agreement_s = compressor.compress, 0.0
        if isinstance(compressor, Agreeing) and compressor.shared:
            offers = [compressor.offer(vectors(row), self.segments) for row in rows.tolist()]
            none = self.vector.new_zeros(1, len(self.segments))
            agreed, agreement_s = self.world.maximum(torch.cat([none, *offers]).amax(dim=0))
            compress = partial(compressor.compress_agreed, agreed=agreed)
            if algorithm.feedback.in_place:  # compensated just now
                vectors = kept[:, :1].__getitem__
        still = self._still(learning_rate)
        messages = []
        for row in rows.tolist():  # one worker from gradient to message while its numbers are in the cache
            waiting = None
            if still is not None:  # to the compressor those entries are 0
                waiting = kept[row, :, still].clone()
                kept[row, :, still] = 0
            x = vectors(row)
            noise = Noise(self.seed, self.ledger.rounds, self.workers.ranks[row])
            message = sent = compress(x, self.segments, [noise])
            if self.adversary is not None and self.adversary.controls(noise.rank, self.world.size):
                honest = message.dense() if compressor.repeats else x
                sent = compress(self.adversary.corrupt(honest, noise), self.segments, [noise])
            if gauges:
                gauges.compressed(row, x, message)
            algorithm.feedback.settle(kept[row], message)
            if waiting is not None:
                kept[row, :, still] = waiting
            messages.append(sent)
        return (concatenate(messages) if messages else None), agreement_s

    def _still(self, learning_rate: float | Tensor) -> Tensor | slice | None:
        """The entries that are sent as 0, and whose errors wait, as their learning rate is 0; None if there are not."""
        if self.algorithm.units == "gradient":
            return None
        if isinstance(learning_rate, Tensor):
            return still if (still := learning_rate == 0).any() else None
        return None if learning_rate else slice(None)

    def _draft(self, gradients: WorkerGradients, learning_rate: float | Tensor, row: int) -> tuple[Tensor, Tensor]:
        """‖C(x)‖² and ‖x − C(x)‖² of what one worker would send."""
        x = self._vector(gradients, learning_rate, row)
        noise = Noise(self.seed, self.ledger.rounds, self.workers.ranks[row])
        message = self.server.uplink.compress(x, self.segments, [noise])
        return message.dense().square().sum(), message.subtract_from(x.clone()).square().sum()

    def _vector(self, gradients: WorkerGradients, learning_rate: float | Tensor, row: int) -> Tensor:
        """(1, d): what the compressor sees of one worker."""
        is_message = isinstance(self.algorithm.compressor, Identity)
        update = gradients.dense(torch.tensor([row]), out=None if is_message else self.workspace)
        if self.algorithm.units == "update":
            update.mul_(learning_rate)
        return self.algorithm.feedback.compensate(update, self.workers.kept[row])

    def _report(
        self,
        uploaded: Tensor,
        message: Message | None,
        losses: Tensor,
        num_backwards: Tensor,
        gauges: Gauges | None,
        learning_rate: float,
        fell_back: bool,
    ) -> Report:
        rows = uploaded.numpy()
        num_bits, num_bits_paper, num_bytes = np.zeros((3, len(rows)), np.int64)
        broken = ~np.isfinite(loss := losses.double().cpu().numpy())
        if message is not None:
            num_bits[rows] = message.num_bits.cpu() + self.offer_bits
            num_bits_paper[rows] = self.algorithm.compressor.num_bits_paper(message).cpu() + self.offer_bits
            broken[rows] |= ~message.finite().cpu().numpy()
        unknown = np.full(len(rows), np.nan)
        gauged = (gauges.gradients, gauges.inputs, gauges.errors, gauges.bounds) if gauges else (unknown,) * 4
        backwards, rates = num_backwards.numpy(), np.full(len(rows), learning_rate)
        fell = np.full(len(rows), fell_back)
        return Report(rows, num_bits, num_bits_paper, num_bytes, backwards, broken, fell, loss, rates, *gauged)

    def state_dict(self) -> dict[str, object]:
        """The state of all M workers, the same in every process and every world. Tensors and numbers only."""
        workers = self.workers.state_dict()
        rows = self.world.gather_rows(workers["rows"])
        snapshots = {t: v for process in self.world.gather(workers["snapshots"]) for t, v in process.items()}
        return {
            "algorithm": repr(self.algorithm),
            "adversary": repr(self.adversary),
            "num_workers": self.world.size,
            "workers": {**workers, "rows": rows, "snapshots": snapshots},
            "server": self.server.state_dict(),
            "lagged_rate": vars(self.lagged_rate),
            "ledger": self.ledger.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict`, in whichever world it was written.

        Raises:
            InputError: it was written by another recipe, other workers or another adversary.
        """
        if state["num_workers"] != self.world.size:
            raise InputError(f"workers: {self.world.size}; the checkpoint holds {state['num_workers']}")
        if state["algorithm"] != repr(self.algorithm):
            raise InputError(f"algorithm: {self.algorithm}; the checkpoint holds {state['algorithm']}")
        if state["adversary"] != repr(self.adversary):
            raise InputError(f"adversary: {self.adversary}; the checkpoint holds {state['adversary']}")
        self.workers.load_state_dict(state["workers"], self.vector.device)
        self.server.load_state_dict(state["server"])
        self.lagged_rate = LaggedRate(**state["lagged_rate"])
        self.ledger.load_state_dict(state["ledger"])
