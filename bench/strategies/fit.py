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
from bench.estimators.base import EstimatingEngine, Outlook
from bench.gradients.batches import Shards, WholeEpoch
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.dealing import deal
from bench.gradients.engines import Engine, FallingBack, Trial, WorkerGradients, make_engine
from bench.gradients.engines.accumulated import Accumulation, Batch
from bench.gradients.engines.base import Step, split_output
from bench.gradients.layout import Layout
from bench.gradients.randomness import lent_once
from bench.gradients.traces import merged
from bench.kernels.noise import Noise
from bench.round.average import average
from bench.round.cohort import Cohort
from bench.round.rates import Rate, rate_of
from bench.round.spent import Spent
from bench.strategies.inner import LightningInner
from bench.strategies.refusals import Trained
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
        engine: computes gradients; None before the first batch.
        engine_name: its name; "auto" until it is chosen.
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
        self.agreed = agreed
        self.scaling = Scaling(precision)
        self.spent = Spent(cohort.ledger)
        self.buffers = WorkerBuffers(module, len(cohort.world.local_ranks))
        schedulers = [config.scheduler for config in module.trainer.lr_scheduler_configs]
        self.buffers.attributes.reached.others = [*module.trainer.optimizers[0].param_groups, *schedulers]
        self.engine: Engine | None = None
        self.engine_name = self._asked = engine
        self.pending: tuple[Batch, WorkerGradients] | None = None
        self.report: Report | None = None
        steps = cohort.algorithm.local_steps
        self.outer = None if steps is None else steps.optimizer(layout.parameters)
        self._inner = LightningInner(module, precision)
        self._estimating: EstimatingEngine | None = None
        self._estimating_state: dict[str, Any] = {}
        self._trained = Trained(module, layout)
        self._accumulation: Accumulation | None = None
        self._told: set[str] = set()
        self._left_out = False

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
        is_first = self.engine is None or not self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if self.buffers.begin_round(thorough=is_first):
            self._trained.refuse_newcomers()
        engine = self.engine = self.engine or self._choose_engine(step, shards, noise)
        if self._estimating is not None:
            self._estimating.prepare(self._outlook(step, noise))
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
        loaders = self.trainer.train_dataloader
        return deal(
            batch,
            len(self.cohort.world.local_ranks),
            self._num_parts,
            loaders if isinstance(loaders, dict | list | tuple) else None,
            self._warn_once,
        )

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
            raise InputError("batch: fewer samples than estimator.num_steps; drop_last=True is needed, as others wait")
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
        if self.engine is None and self._left_out:
            least = self.cohort.world.size * self._num_parts
            raise InputError(f"batch: all so far are too short; at least {least} samples are needed")

    def _choose_engine(self, step: Step, shards: Shards, noise: Sequence[Noise]) -> Engine:
        """The engine of this fit, chosen on its first batch."""
        if self._asked == "auto":
            if self.engine_name == "auto":
                self.engine_name = self.agreed(self._fitting_engine(step, shards, noise))
            self._plain = FallingBack(self.engine_name, self.module, self.layout, self.buffers)
        else:
            self._plain = make_engine(self.engine_name, self.module, self.layout, self.buffers)
        if self.estimator is None:
            return self._plain
        self._estimating = self.estimator.around(self._plain)
        self._estimating.load_state_dict(self._estimating_state)
        return self._estimating

    def _fitting_engine(self, step: Step, shards: Shards, noise: Sequence[Noise]) -> str:
        """The name of the engine that suits this batch.

        The loop where there is but one worker: others have nothing to join and, on CPUs, give the same gradients. Lazy
        rules also compare gradients, whose distances differ in last bits, so they use one engine in every world.
        """
        if len(noise) == 1 and self.layout.vector.device.type == "cpu" and not self.cohort.algorithm.rule.adaptive:
            return "loop"
        exact = self.precision.precision == "32-true"
        return Trial(self.module, self.layout, self.buffers, step, shards, noise, exact).choose()

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
        """Add the pending batch to its round, and run the round once all its batches are there."""
        assert self.engine is not None
        assert self.pending is not None
        self._accumulation = self._accumulation or Accumulation(self.engine)
        self._accumulation.add(*self.pending)
        self.pending = None
        if not self.trainer.fit_loop._should_accumulate():
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
                fell_back=isinstance(self._plain, FallingBack) and self._plain.name != self.engine_name,
            )
        self._fall_back(self.report)
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

    def _fall_back(self, report: Report) -> None:
        """Use the loop from now on, if any worker had to."""
        if report.fell_back.any():
            assert isinstance(self._plain, FallingBack)
            self._plain.fall_back()
            self.engine_name = self._plain.name

    def _warn_of_unreached(self) -> None:
        """Warn once of parameters that move although no loss depends on them."""
        if not (unreached := self._plain.unreached):
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
        state = self._estimating_state if self._estimating is None else self._estimating.state_dict()
        outer = None if self.outer is None else self.outer.state_dict()
        return {
            "engine": self.engine_name,
            "estimator": repr(self.estimator),
            "estimating": state,
            "outer": outer,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from `state_dict`. Call before the first batch."""
        anchor = {"anchor": state["anchor"]} if "anchor" in state else {}  # the place in older checkpoints
        self._estimating_state = state.get("estimating", anchor)
        if self.outer is not None:
            self.outer.load_state_dict(state["outer"])
        if self.engine_name == "auto":  # keep the engine chosen then, whichever is fastest now
            self.engine_name = state.get("engine", "auto")
