"""One fit: turns a Trainer's batches into the rounds of a cohort."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import lightning
import torch
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import rank_zero_warn

from bench.collectives.report import END, Report
from bench.errors import InputError
from bench.estimators import Estimator
from bench.estimators.base import Outlook
from bench.gradients.batches import Shards, WholeEpoch
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.counting import SampleCounts
from bench.gradients.dealing import deal
from bench.gradients.engines import WorkerGradients
from bench.gradients.engines.accumulated import Accumulation, Batch
from bench.gradients.engines.base import Step, split_output
from bench.gradients.layout import Layout
from bench.gradients.randomness import lent_once
from bench.gradients.traces import merged
from bench.gradients.trained import Trained
from bench.kernels.noise import Noise
from bench.round.average import average
from bench.round.cohort import Cohort
from bench.round.rates import Rate, rate_of
from bench.round.spent import Spent
from bench.strategies.chosen import ChosenEngine
from bench.strategies.inner import LightningInner
from bench.strategies.scaling import Scaling


class Fit:
    """Runs the workers' steps, and the rounds that these make up.

    Args:
        module: to train.
        layout: of its parameters.
        cohort: of the workers.
        engine: the name that the user gave.
        estimator: SVRG or local SGD, if workers send something other than the gradient of a batch.
        precision: the Trainer's.
        agreed: a value -> rank 0's value, in every process.

    Attributes:
        buffers: what steps write, one row per worker.
        chosen: the engine that computes gradients.
        outer: steps by the direction where workers take local steps with the module's optimizer; otherwise None.
        pending: the batch of this step and its gradients, until they are added to a round.
        report: of all M workers on the last round; None before the first.
    """

    def __init__(
        self,
        module: lightning.LightningModule,
        layout: Layout,
        cohort: Cohort,
        engine: str,
        estimator: Estimator | None,
        precision: Precision,
        agreed: Callable[[str], str],
    ) -> None:
        self.module = module
        self.layout = layout
        self.cohort = cohort
        self.estimator = estimator
        self.precision = precision
        self.scaling = Scaling(precision)
        self.spent = Spent(cohort.ledger)
        self.buffers = WorkerBuffers(module, len(cohort.world.local_ranks))
        schedulers = [config.scheduler for config in module.trainer.lr_scheduler_configs]
        self.buffers.attributes.reached.others = [*module.trainer.optimizers[0].param_groups, *schedulers]
        adaptive = cohort.algorithm.rule.adaptive
        self.chosen = ChosenEngine(module, layout, self.buffers, engine, estimator, precision, adaptive, agreed)
        self.pending: tuple[Batch, WorkerGradients] | None = None
        self.report: Report | None = None
        steps = cohort.algorithm.local_steps
        self.outer = None if steps is None else steps.optimizer(layout.parameters)
        self._inner = LightningInner(module, precision)
        self._trained = Trained(module, layout)
        self._accumulation: Accumulation | None = None
        self._counts = SampleCounts()
        self._told: set[str] = set()
        self._left_out = False
        self._played: tuple[int, int] | None = None  # the epoch and batch after which the last round ran

    @property
    def trainer(self) -> lightning.Trainer:
        return self.module.trainer

    @property
    def is_clear(self) -> bool:
        """Whether no parameter has a gradient other than 0."""
        return not any(p.grad is not None and p.grad.any() for p in self.layout.parameters)

    @property
    def _num_parts(self) -> int:
        """The parts into which a worker's batch is split."""
        return self.estimator.num_parts if self.estimator else 1

    def step(self, batch: Any, rest: Sequence[Any], kwargs: Mapping[str, Any], gauged: bool) -> Any:
        """Losses and gradients of the local workers.

        Args:
            batch: of all these workers.
            rest, kwargs: further arguments of the module's `training_step`.
            gauged: whether a round that is played here is measured.

        Returns:
            The mean loss, detached; if steps return more, a dict of it and the rest, combined by `merged`; None if the
            batch is too short to deal.
        """
        self._trained.refuse_changes()
        self.pending = None
        if (shards := self._deal(batch)) is None:
            return self._leave_out(gauged)
        noise, step = self._noise(), partial(self._module_step, rest=rest, kwargs=kwargs)
        is_first = self.chosen.engine is None or not self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if self.buffers.begin_round(thorough=is_first):
            self._trained.refuse_newcomers()
        engine = self.chosen.on(step, shards, noise)
        if self.chosen.estimating is not None:
            self.chosen.estimating.prepare(self._outlook(step, noise))
        if self._accumulation:
            self._accumulation.hold()
        else:
            self.buffers.attributes.forget_starts()
        with self.spent.computing(), lent_once():
            gradients = engine.gradients(step, shards, noise)
        self._refuse_rates()
        self.pending = Batch(step, shards, noise), gradients
        loss = gradients.losses.mean() * self.trainer.accumulate_grad_batches / self.scaling.scale
        extras = merged(gradients.extras)
        return {"loss": loss, **extras} if extras else loss

    def _refuse_rates(self) -> None:
        """Raise InputError if workers' steps have set different learning rates: one step is taken for all."""
        groups = self.trainer.optimizers[0].param_groups
        for (cell, key), rows in self.buffers.attributes.rows.items():
            if key == "lr" and any(cell.target is group for group in groups) and len({*map(float, rows)}) > 1:
                told = ", ".join(f"{float(rate):g}" for rate in rows)
                raise InputError(f"training_step: workers have set the learning rates {told}; equal ones are needed")

    def _module_step(self, shard: Any, rest: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """One worker's step, with its loss divided and scaled as Lightning does."""
        with (
            self._trained.only_read(self.buffers.thorough),
            self.precision.train_step_context(),  # entered for each step: autocast caches casts of the weights
        ):
            output = self.module.training_step(shard, *rest, **kwargs)
        number = self.trainer.accumulate_grad_batches
        if number == 1 and self.scaling.scaler is None:
            return output
        loss, extras = split_output(output)
        return {**extras, "loss": self.scaling.scaled(loss / number)}

    def _noise(self) -> list[Noise]:
        part = len(self._accumulation.batches) if self._accumulation else 0
        cohort = self.cohort
        return [Noise(cohort.seed, cohort.ledger.rounds, rank, part) for rank in cohort.world.local_ranks]

    def _deal(self, batch: Any) -> Shards | None:
        num_workers, loaders = len(self.cohort.world.local_ranks), self.trainer.train_dataloader
        return deal(batch, num_workers, self._num_parts, loaders, self._warn_once, self._counts)

    def _warn_once(self, message: str, about: str | None = None) -> None:
        """Warn once per fit: of equal messages, or of those with the same `about`, the first."""
        if (about or message) not in self._told:
            self._told.add(about or message)
            rank_zero_warn(message)

    def _leave_out(self, gauged: bool) -> None:
        """Skip a batch that is too short. Those accumulated before it still make a round.

        Raises:
            InputError: others wait for a worker of this process; or no batch of the epoch was long enough.
        """
        world = self.cohort.world
        if world.size > len(world.local_ranks):
            raise InputError("batch: fewer samples than num_steps; drop_last=True is needed, as others wait")
        self._left_out = True
        if self.trainer.is_last_batch:
            self.refuse_no_rounds()
        # Silences Lightning's own warning of a step that returns nothing; ours has given the reason.
        Closure.warning_cache.add("`training_step` returned `None`. If this was on purpose, ignore this warning...")
        if self._accumulation and not self.trainer.fit_loop._should_accumulate():
            if self.scaling.scaler is None:
                self.play(self.trainer.optimizers[0], gauged)
            else:  # the scaler steps no optimizer after a step that returned nothing
                self._accumulation = None
                self._warn_once("batch: too short, and those accumulated before it are left out with it")

    def refuse_no_rounds(self) -> None:
        """Raise InputError if batches came, and all were too short."""
        if self.chosen.engine is None and self._left_out:
            least = self.cohort.world.size * self._num_parts
            raise InputError(f"batch: all so far are too short; at least {least} samples are needed")

    def _outlook(self, step: Step, noise: Sequence[Noise]) -> Outlook:
        return Outlook(
            algorithm=self.cohort.algorithm,
            num_workers=self.cohort.world.size,
            epoch=self.trainer.current_epoch,
            learning_rate=rate_of(self.trainer.optimizers[0], self.layout),
            step=step,
            noise=noise,
            whole_epoch=self._whole_epoch,
            inner=self._inner,
            kept=self.cohort.workers.kept,
            gather=self.cohort.world.gather,
            average=partial(average, self.cohort),
        )

    def _whole_epoch(self) -> Iterator[Shards]:
        """Yield every batch of the training set, moved to the device as in training, and dealt."""
        loader = self.trainer.train_dataloader
        batches: Any = loader.whole_epoch() if isinstance(loader, WholeEpoch) else loader
        device = self.trainer.strategy.root_device
        for batch in batches:
            shards = self._deal(self.module._apply_batch_transfer_handler(batch, device, 0))
            if shards is not None:
                yield shards

    def keep(self, optimizer: Any, gauged: bool) -> None:
        """Add the pending batch to its round, and run the round once all its batches are there.

        Raises:
            InputError: the optimizer takes a second gradient of the last of several batches alone.
        """
        assert self.chosen.engine is not None
        assert self.pending is not None
        now = self.trainer.current_epoch, self.trainer.fit_loop.batch_idx
        if (number := self.trainer.accumulate_grad_batches) > 1 and self._played == now:
            raise InputError(
                f"accumulate_grad_batches: {number}; with an optimizer whose step takes several gradients 1 is needed"
            )
        self._accumulation = self._accumulation or Accumulation(self.chosen.engine)
        self._accumulation.add(*self.pending)
        self.pending = None
        if not self.trainer.fit_loop._should_accumulate():
            self._played = now
            self.play(optimizer, gauged)

    def play(self, optimizer: Any, gauged: bool) -> None:
        """Run the round of the accumulated batches, and leave its direction in `p.grad`."""
        accumulation, self._accumulation = self._accumulation, None
        assert accumulation is not None
        layout, scale = self.layout, self.scaling.scale
        gradients = accumulation.gradients(1 / scale)
        if self.scaling.overflowed(gradients, self.cohort.world, layout.vector):
            # Infinite gradients make the scaler skip the optimizer's step and lower the scale, in every process alike.
            self.report = Report.of_nothing(gradients.losses)
            layout.set_gradient(torch.full_like(layout.vector, torch.inf))
            return
        learning_rate = rate_of(self.outer or optimizer, self.layout)
        with self.spent.compressing(), lent_once():
            direction, self.report = self.cohort.round(
                layout.vector,
                gradients,
                self.spent.in_computing(lambda rows, at: accumulation.gradients_at(rows, at, 1 / scale)),
                learning_rate,
                self.trainer.current_epoch,
                gauged,
                fell_back=self.chosen.fell_back,
            )
        self.chosen.follow(self.report)
        if (self.report.asks & END).any():
            self.trainer._signal_connector.received_sigterm = True  # Lightning ends the fit after this batch
        if self.cohort.algorithm.units == "update":
            direction = Rate(learning_rate).over(direction)  # which the optimizer multiplies by γ again
        if scale != 1:
            direction = direction * scale  # the scaler divides by it again
        layout.set_gradient(direction)
        if isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.SparseAdam):
            for p in layout.parameters:
                assert p.grad is not None
                p.grad = p.grad.to_sparse(min(1, p.ndim))  # the rows of an embedding that any worker's samples reached
        self._warn_of_unreached()

    def _warn_of_unreached(self) -> None:
        """Warn once of parameters that move although no loss depends on them."""
        if not (unreached := self.chosen.unreached):
            return
        algorithm = self.cohort.algorithm
        decays = any(group.get("weight_decay") for group in self.trainer.optimizers[0].param_groups)
        if not (algorithm.moves_zeros or decays):
            return
        names = ", ".join(self.layout.names[slot] for slot in sorted(unreached))
        why = "the sign of 0 is not 0 here, so these entries move by the learning rate every round"
        if not algorithm.moves_zeros:
            why = "it is 0, not None, so that weight decay shrinks them"
        self._warn_once(f"{algorithm.name}: no gradient reached {names}; {why}", about="unreached parameters")

    def state_dict(self) -> dict[str, Any]:
        """The state of the fit besides the cohort's, the same in every process."""
        outer = None if self.outer is None else self.outer.state_dict()
        return {**self.chosen.state_dict(), "outer": outer, "sample_depths": dict(self._counts.depths)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from `state_dict`. Call before the first batch."""
        self.chosen.load_state_dict(state)
        self._counts.depths.update(state.get("sample_depths", {}))
        if self.outer is not None:
            self.outer.load_state_dict(state["outer"])
