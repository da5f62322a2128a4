"""The hooks of a compressed strategy, in the order in which Lightning calls them.

In automatic optimisation that is `training_step`, `zero_grad`, `backward` and the optimizer's step. `training_step`
computes the workers' losses and gradients; `backward` runs the round and leaves the direction in `p.grad`. Clipping,
optimizers, schedulers and callbacks work as usual.
"""

from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.collectives.agreement import agree, described, refused_together
from bench.collectives.choice import CollectiveName
from bench.collectives.report import Report
from bench.collectives.world import World
from bench.errors import InputError
from bench.estimators import Estimator, InnerSteps
from bench.gradients.batches import Served
from bench.gradients.engines import EngineName
from bench.gradients.layout import Layout
from bench.gradients.overlaps import refuse_overlaps
from bench.kinds import refuse_kind
from bench.recipes import changed, load_recipe
from bench.round.cohort import Cohort
from bench.round.ledger import Ledger
from bench.round.memory import refuse_more_than_free
from bench.round.state import restore, state_of
from bench.round.written import refuse_other
from bench.strategies.apart import Apart
from bench.strategies.averages import Averages, AveragesFirst
from bench.strategies.ending import end_on
from bench.strategies.fit import Fit
from bench.strategies.refusals import one_optimizer, refuse_fit, refuse_optimizers, refuse_options, refuse_schedulers

CHECKPOINT_KEY = "bitbudget"

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy as _Base
else:
    _Base = object


class Compressed(_Base):
    """What the strategies of both worlds share: everything except where the workers run.

    Attributes:
        ending_signals: those that end a fit after a round, instead of at once.
        received: those that came.
        gauged: whether the next round's report is to include the norms of gradients and compression errors.
    """

    def __init__(
        self,
        algorithm: Algorithm | str,
        seed: int = 0,
        engine: EngineName = "auto",
        adversary: Adversary | None = None,
        estimator: Estimator | None = None,
        **options: Any,
    ) -> None:
        recipe = load_recipe(algorithm) if isinstance(algorithm, str) else algorithm
        for name, given, hint in (
            ("algorithm", recipe, Algorithm),
            ("seed", seed, int),
            ("adversary", adversary, Adversary | None),
            ("estimator", estimator, Estimator | None),
        ):
            refuse_kind(name, given, hint)
        if seed < 0:
            raise InputError(f"seed: {seed}; at least 0 is needed")
        self.algorithm, lightnings = changed(recipe, options)
        refuse_options(type(self), self.algorithm.name, lightnings)
        super().__init__(**lightnings)
        self.seed = seed
        self.engine_name = engine
        self.adversary = adversary
        self.estimator = estimator
        if (steps := self.algorithm.local_steps) is not None:
            if estimator is not None:
                name = type(estimator).__name__
                raise InputError(f"estimator: {name}; {self.algorithm.name} takes local steps itself, None is needed")
            self.estimator = InnerSteps(steps)
        self.collective: CollectiveName = "auto"
        self.ending_signals: tuple[int, ...] = ()
        self.received: list[int] = []
        self.gauged = False
        self._fit: Fit | None = None

    @property
    def world(self) -> World:
        raise NotImplementedError  # each strategy defines its own

    @property
    def fitting(self) -> Fit:
        """The state of the fit; available once a Trainer's `fit` has started."""
        if self._fit is None:
            raise RuntimeError("cohort, ledger: not available before fit has started")
        return self._fit

    @property
    def cohort(self) -> Cohort:
        """The workers and their server; available once a Trainer's `fit` has started."""
        return self.fitting.cohort

    @property
    def ledger(self) -> Ledger:
        """The ledger of the run so far."""
        return self.cohort.ledger

    @property
    def last_report(self) -> Report:
        """The reports of all M workers on the last round."""
        assert self.fitting.report is not None, "no round has run"
        return self.fitting.report

    # When a fit starts

    def setup_optimizers(self, trainer: lightning.Trainer) -> None:
        """Called once per fit, with the module on its device: adopt its parameters and create the cohort."""
        module, world = self.lightning_module, self.world
        assert module is not None
        with refused_together(world):
            refuse_fit(trainer, module, self.precision_plugin, self.estimator)
            with one_optimizer():
                super().setup_optimizers(trainer)
            refuse_overlaps(module)
            layout = Layout(module.named_parameters())  # of what `configure_optimizers` has left
            refuse_optimizers(self.optimizers, self.algorithm, layout)
            if self.estimator is not None:
                self.estimator.refuse(self.algorithm, self.adversary, self.optimizers[0])
            if self.algorithm.local_steps is not None:
                refuse_schedulers(self.lr_scheduler_configs)
        parts = {
            name: str(getattr(self, name)) for name in ("algorithm", "adversary", "estimator", "seed", "collective")
        }
        agree(world, {**parts, "engine": self.engine_name, **described(module)})
        self._share_initial_state(module, layout)
        with refused_together(world):
            refuse_more_than_free(self.algorithm, world, layout, self.engine_name)
        cohort = Cohort(self.algorithm, world, layout, self.seed, self.adversary, self.collective)
        self._fit = Fit(module, layout, cohort, self.engine_name, self.estimator, self.precision_plugin, self.broadcast)
        steps = self.algorithm.local_steps
        apart = Apart(cohort, layout) if steps and steps.apart else None
        self._averages = Averages(self._fit.buffers, world, apart)
        callbacks: list[lightning.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        self._shows_averages = any(isinstance(each, WeightAveraging) for each in callbacks)
        others = (each for each in callbacks if not isinstance(each, AveragesFirst))
        callbacks[:] = [AveragesFirst(self._averages), *others]

    def _share_initial_state(self, module: lightning.LightningModule, layout: Layout) -> None:
        """Start every worker from rank 0's parameters."""

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """The hook in which Lightning hands over the whole checkpoint.

        Raises:
            InputError: the checkpoint is of another number of workers, recipe, adversary or estimator.
        """
        super().load_optimizer_state_dict(checkpoint)
        if (state := checkpoint.get(CHECKPOINT_KEY)) is None:
            return  # trained by another strategy: weights and optimizer are restored, the cohort starts anew
        refuse_other("estimator", self.estimator, state.get("estimator", repr(None)))
        restore(self.cohort, state["cohort"])
        self.fitting.load_state_dict(state)
        self.fitting.buffers.load_rows(state["buffers"], self.world.local_ranks)
        if self._averages.apart is not None:
            self.fitting.layout.vector.copy_(state["shared"])
        if len(generators := state["generators"]) > (rank := self.world.local_ranks[0]):
            torch.set_rng_state(generators[rank])
        self._averages.put()  # which stay if nothing is left to train

    def on_train_start(self) -> None:
        """Check that all processes will run the same rounds, and listen to signals from now on."""
        trainer = self._trainer
        agree(
            self.world,
            {
                "batches an epoch": trainer.num_training_batches,
                "accumulate_grad_batches": trainer.accumulate_grad_batches,
            },
        )
        self.listen()

    def listen(self) -> None:
        """Let `ending_signals` end the fit after a round."""
        if self.ending_signals:
            end_on(self.ending_signals, self._trainer, self.cohort.world, self.received)

    # For every batch

    def training_step(self, batch: Any, *rest: Any, **kwargs: Any) -> Any:
        """Losses and gradients of the local workers: see `Fit.step`."""
        self._averages.put_back()
        return self.fitting.step(batch, rest, kwargs, self.gauged)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run the round, once all its batches are accumulated, and write the direction to `p.grad`.

        Raises:
            InputError: the module's `optimizer_zero_grad` has kept gradients, which the direction would replace.
        """
        module = self.lightning_module
        assert module is not None
        if is_overridden("optimizer_zero_grad", module) and not self.fitting.is_clear:
            raise InputError(
                "optimizer_zero_grad: it keeps gradients; accumulate_grad_batches is needed to add them up"
            )
        self.pre_backward(closure_loss)
        closure_loss = self.precision_plugin.pre_backward(closure_loss, module)
        self.fitting.keep(optimizer, self.gauged)
        closure_loss = self.precision_plugin.post_backward(closure_loss, module)
        self.post_backward(closure_loss)
        return closure_loss

    def optimizer_step(self, optimizer: torch.optim.Optimizer, closure: Any, *args: Any, **kwargs: Any) -> Any:
        """Step the optimizer. Where workers have stepped it by themselves, the outer one steps instead."""
        if (outer := self.fitting.outer) is None:
            loss = super().optimizer_step(optimizer, closure, *args, **kwargs)
        else:
            loss = closure()
            outer.step()
        if self._shows_averages:
            self._averages.put()  # for the callback, which reads the module's buffers before the next step
        return loss

    # For every evaluation, which starts with the average of what workers have of their own: see `AveragesFirst`

    def validation_step(self, batch: Any, *rest: Any, **kwargs: Any) -> Any:
        """Evaluate a batch; a `Served` one with the average of its workers' buffers."""
        tree, ranks = batch if isinstance(batch, Served) else (batch, slice(None))
        if self._is_fitting:
            self._averages.serve(ranks)
        return super().validation_step(tree, *rest, **kwargs)

    def on_validation_end(self) -> None:
        """Restore what the workers have of their own, for training."""
        if self._is_fitting and not self._shows_averages:
            self._averages.put_back()

    # For every checkpoint

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's state, with the workers' average buffers while fitting. All processes must call it."""
        state = super().lightning_module_state_dict()
        return self._averages.in_place_of(state) if self._is_fitting else state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Save a checkpoint with the cohort's state. All ranks must call it."""
        if "optimizer_states" in checkpoint:  # absent where only weights are saved
            self.add_cohort(checkpoint)
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def add_cohort(self, checkpoint: dict[str, Any]) -> None:
        """Add the cohort's state and the processes' random number generators. All ranks must call it."""
        checkpoint[CHECKPOINT_KEY] = {
            "buffers": self._averages.state_dict(),
            "cohort": state_of(self.cohort),
            **self.fitting.state_dict(),
            "generators": self.world.gather(torch.get_rng_state()),
        }
        if self._averages.apart is not None:
            checkpoint[CHECKPOINT_KEY]["shared"] = self._averages.apart.shared.cpu()

    # When a fit ends

    def on_train_end(self) -> None:
        """Check that some round has run. By now the module has the workers' average buffers: see `AveragesFirst`.

        Raises:
            InputError: all batches were too short.
        """
        self.fitting.refuse_no_rounds()

    @property
    def _trainer(self) -> lightning.Trainer:
        assert self.lightning_module is not None
        return self.lightning_module.trainer

    @property
    def _is_fitting(self) -> bool:
        state = self._trainer.state
        return self._fit is not None and state.fn is TrainerFn.FITTING and state.status is not TrainerStatus.FINISHED
