"""The Lightning plug-in: any LightningModule, trained by a recipe.

    import bench
    Trainer(strategy="sasg")                                        # ten workers simulated in this process
    Trainer(strategy=CompressedStrategy("sasg", workers=4))
    Trainer(strategy="sasg_ddp", accelerator="cpu", devices=4)      # four processes, or launched by torchrun

In automatic optimisation Lightning calls `training_step`, `zero_grad`, `backward` and the optimizer, in this order.
`training_step` computes the workers' losses and gradients; `backward` plays the round and leaves the direction
in `p.grad`. Clipping, optimizers, schedulers and callbacks go on working as ever.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from bench.adversary import Adversary
from bench.agreement import agree, described, refused_together
from bench.algorithm import Algorithm
from bench.batches import Served, Shards, WholeEpoch, deal
from bench.buffers import WorkerBuffers, mean
from bench.engines import Engine, EngineName, FallingBack, Trial, make_engine
from bench.engines.accumulated import Accumulation, Batch
from bench.engines.base import Step, WorkerGradients, split_output
from bench.engines.randomness import lent_once
from bench.engines.traces import merged
from bench.errors import InputError
from bench.estimator import Estimator
from bench.layout import Layout
from bench.ledger import Ledger, Report
from bench.link import LinkModel, StarLink
from bench.local_sgd import LocalEngine, LocalSGD
from bench.noise import Noise
from bench.recipes import changed, load_recipe
from bench.refusals import one_optimizer, refuse_fit, refuse_optimizers
from bench.round import Cohort
from bench.svrg import SVRG, Anchor, SVRGEngine
from bench.world import ProcessWorld, SimulatedWorld, World

CHECKPOINT_KEY = "bitbudget"

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy as _Base
else:
    _Base = object


class _Compressed(_Base):
    """What both worlds share, which is everything but where the workers live.

    Attributes:
        gauged: whether the next round's report shall tell how long gradients and compression errors are.
    """

    def __init__(
        self,
        algorithm: Algorithm | str,
        link: LinkModel | None = None,
        seed: int = 0,
        engine: EngineName = "auto",
        adversary: Adversary | None = None,
        estimator: Estimator | None = None,
        **options: Any,
    ) -> None:
        recipe = load_recipe(algorithm) if isinstance(algorithm, str) else algorithm
        self.algorithm, lightnings = changed(recipe, options)
        self._refuse_options(lightnings)
        super().__init__(**lightnings)
        self.link = link or StarLink()
        self.seed = seed
        self.engine_name = engine
        self.adversary = adversary
        self.estimator = estimator
        self.gauged = False
        self._anchor: Anchor | None = None
        self._engine: Engine | None = None
        self._engine_used: str = engine
        self._cohort: Cohort | None = None
        self._report: Report | None = None
        self._pending: tuple[Batch, WorkerGradients] | None = None
        self._accumulation: Accumulation | None = None
        self._told: set[str] = set()

    def _refuse_options(self, options: Mapping[str, Any]) -> None:
        """Raise InputError for keywords that neither the recipe nor Lightning has."""
        parameters = [p for owner in type(self).__mro__ for p in signature(owner.__init__).parameters.values()]
        known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        for name, value in options.items():
            if name not in known:
                raise InputError(f"{name}: {value!r}; neither {self.algorithm.name}, its parts nor Lightning have it")

    @property
    def world(self) -> World:
        raise NotImplementedError  # each world's own strategy says

    @property
    def cohort(self) -> Cohort:
        """The workers and their server; there from the start of `fit`."""
        if self._cohort is None:
            raise RuntimeError("cohort, ledger: there are none before fit has started")
        return self._cohort

    @property
    def ledger(self) -> Ledger:
        """The account of the run so far."""
        return self.cohort.ledger

    @property
    def last_report(self) -> Report:
        """What all M workers said of the last round."""
        assert self._report is not None, "no round has been played"
        return self._report

    def setup_optimizers(self, trainer: lightning.Trainer) -> None:
        """Called once per fit, with the module on its device: adopt its parameters and gather the cohort."""
        module, world = self.lightning_module, self.world
        assert module is not None
        with refused_together(world):
            refuse_fit(trainer, module, self.precision_plugin, self.estimator)
            self._layout = Layout(module.named_parameters())
            self._trained = [(name, p, p.requires_grad) for name, p in module.named_parameters()]
            with one_optimizer():
                super().setup_optimizers(trainer)
            refuse_optimizers(self.optimizers)
            if self.estimator is not None:
                self.estimator.refuse(self.algorithm, self.adversary, self.optimizers[0])
        parts = {name: str(getattr(self, name)) for name in ("algorithm", "adversary", "estimator", "seed")}
        agree(world, {**parts, "engine": self.engine_name, **described(module)})
        self._share_initial_state(module)
        self._buffers = WorkerBuffers(module, len(world.local_ranks))
        self._engine, self._engine_used, self._anchor = None, self.engine_name, None
        self._pending, self._accumulation, self._told = None, None, set()
        self._cohort = Cohort(self.algorithm, world, self.link, self._layout, self.seed, self.adversary)

    def _share_initial_state(self, module: lightning.LightningModule) -> None:
        """Start every worker from rank 0's parameters."""

    def on_train_start(self) -> None:
        """Make sure that all processes will play the same rounds."""
        trainer = self._trainer
        agree(
            self.world,
            {
                "batches an epoch": trainer.num_training_batches,
                "accumulate_grad_batches": trainer.accumulate_grad_batches,
            },
        )

    @property
    def _trainer(self) -> lightning.Trainer:
        assert self.lightning_module is not None
        return self.lightning_module.trainer

    def training_step(self, batch: Any, *rest: Any, **kwargs: Any) -> Any:
        """Losses and gradients of the local workers.

        Returns the mean loss, without a graph; where steps return more, a dict of it and what `merged` makes of the
        rest; None where the batch is too short to deal.
        """
        module, trainer, ranks = self.lightning_module, self._trainer, self.world.local_ranks
        assert module is not None
        for name, parameter, trained in self._trained:
            if parameter.requires_grad != trained:
                became = f"{parameter.requires_grad} during fit; what is trained is settled when it starts"
                raise InputError(f"requires_grad: {name} became {became}")
        self._pending = None
        if (shards := self._deal(batch)) is None:
            return self._leave_out()
        accumulation = self._accumulation
        part = len(accumulation.batches) if accumulation else 0
        noise = [Noise(self.seed, self.ledger.rounds, rank, part) for rank in ranks]
        number = trainer.accumulate_grad_batches

        def step(shard: Any) -> Any:
            with self.precision_plugin.train_step_context():  # anew each time: autocast keeps casts of the weights
                output = module.training_step(shard, *rest, **kwargs)
            if number == 1 and self._scaler is None:
                return output
            loss, extras = split_output(output)
            return {**extras, "loss": self._scaled(loss / number)}

        is_first = self._engine is None or not trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if self._buffers.begin_round(thorough=is_first):
            known = set(map(id, self._layout.parameters))
            for name, p in module.named_parameters():
                if p.requires_grad and p.numel() and id(p) not in known:
                    raise InputError(f"parameters: {name} came during fit; what is trained is settled when it starts")
        engine = self._chosen_engine(step, shards, noise)
        if isinstance(engine, SVRGEngine):
            engine.anchor = self._anchor = self._moved_anchor(engine, step, noise)
        if isinstance(engine, LocalEngine):
            assert isinstance(self.estimator, LocalSGD)
            rate = self._learning_rate(self.optimizers[0])
            engine.learning_rate = self.estimator.learning_rate(rate, self.algorithm.aggregator, self.world.size)
        if accumulation:
            accumulation.hold()
        with lent_once():
            gradients = engine.gradients(step, shards, noise)
        self._pending = Batch(step, shards, noise), gradients
        loss = gradients.losses.mean() * number / self._scale
        extras = merged(gradients.extras)
        return {"loss": loss, **extras} if extras else loss

    def _deal(self, batch: Any) -> Shards | None:
        loaders = self._trainer.train_dataloader
        return deal(
            batch,
            len(self.world.local_ranks),
            self.estimator.num_parts if self.estimator else 1,
            loaders if isinstance(loaders, dict | list | tuple) else None,
            self._warn_once,
        )

    def _warn_once(self, message: str, about: str | None = None) -> None:
        """Tell the user, once a fit however often it happens, or however often there is more to say about it."""
        if (about or message) not in self._told:
            self._told.add(about or message)
            rank_zero_warn(message)

    def _leave_out(self) -> None:
        """Do without a batch that is too short. Those that were accumulated before it still make a round."""
        if self.world.size > len(self.world.local_ranks):
            raise InputError("batch: fewer samples than estimator.num_steps; drop_last=True is needed, others wait")
        # Lightning's own warning of a step that returns nothing; ours has said why.
        Closure.warning_cache.add("`training_step` returned `None`. If this was on purpose, ignore this warning...")
        if self._accumulation and not self._trainer.fit_loop._should_accumulate():
            if self._scaler is None:
                self._play(self.optimizers[0])
            else:  # which steps no optimizer after a step that returned nothing
                self._accumulation = None
                self._warn_once("batch: too short, and those accumulated before it are left out with it")

    def _chosen_engine(self, step: Step, shards: Shards, noise: Sequence[Noise]) -> Engine:
        """The engine of this fit, which is settled on its first batch."""
        module = self.lightning_module
        assert module is not None
        if self._engine is not None:
            return self._engine
        if self.engine_name == "auto":
            if self._engine_used == "auto":
                exact = self.precision_plugin.precision == "32-true"
                trial = Trial(module, self._layout, self._buffers, step, shards, noise, exact)
                self._engine_used = self.broadcast(trial.choose())  # the same in every process
            plain = FallingBack(self._engine_used, module, self._layout, self._buffers)
        else:
            plain = make_engine(self._engine_used, module, self._layout, self._buffers)
        self._plain_engine = plain
        self._engine = plain if self.estimator is None else self.estimator.around(plain)
        return self._engine

    def _moved_anchor(self, engine: SVRGEngine, step: Step, noise: Sequence[Noise]) -> Anchor:
        """SVRG's anchor in this round: the last one, or a new one here, paid for by all workers."""
        assert isinstance(self.estimator, SVRG)
        module, anchor, trainer = self.lightning_module, self._anchor, self._trainer
        assert module is not None
        if anchor is not None and trainer.current_epoch < anchor.epoch + self.estimator.interval:
            return anchor
        loader = trainer.train_dataloader
        batches: Any = loader.whole_epoch() if isinstance(loader, WholeEpoch) else loader
        arrived = (
            module._apply_batch_transfer_handler(batch, self.root_device, 0) for batch in batches
        )  # as in training
        shards = (dealt for batch in arrived if (dealt := self._deal(batch)) is not None)
        with lent_once():
            rows, num_batches = engine.full_gradients(step, shards, noise)
        return Anchor(self._layout.vector.clone(), self.cohort.average(rows, num_batches), trainer.current_epoch)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Play the round, once all its batches are there, and write the direction to `p.grad`."""
        module = self.lightning_module
        assert module is not None
        self.pre_backward(closure_loss)
        closure_loss = self.precision_plugin.pre_backward(closure_loss, module)
        assert self._engine is not None
        assert self._pending is not None
        self._accumulation = self._accumulation or Accumulation(self._engine)
        self._accumulation.add(*self._pending)
        self._pending = None
        if not self._trainer.fit_loop._should_accumulate():
            self._play(optimizer)
        closure_loss = self.precision_plugin.post_backward(closure_loss, module)
        self.post_backward(closure_loss)
        return closure_loss

    def _play(self, optimizer: Any) -> None:
        """The round of the batches that have accumulated."""
        accumulation, self._accumulation = self._accumulation, None
        assert accumulation is not None
        layout, unscale = self._layout, 1 / self._scale
        gradients = accumulation.gradients(unscale)
        if self._scaler is not None and self._anybody_overflowed(gradients):
            # The optimizer does not step, and the scale falls, in every process alike.
            self._report = Report.of_nothing(gradients.losses)
            layout.set_gradient(torch.full_like(layout.vector, torch.inf))
            return
        learning_rate = self._learning_rate(optimizer)
        fell_back = isinstance(self._plain_engine, FallingBack) and self._plain_engine.name != self._engine_used
        with lent_once():
            direction, self._report = self.cohort.round(
                layout.vector,
                gradients,
                lambda rows, parameters: accumulation.gradients_at(rows, parameters, unscale),
                learning_rate,
                self._trainer.current_epoch,
                self.gauged,
                fell_back,
            )
        if self._report.fell_back.any():
            assert isinstance(self._plain_engine, FallingBack)
            self._plain_engine.fall_back()
            self._engine_used = self._plain_engine.name
        if self.algorithm.units == "update":
            direction = _over(direction, learning_rate)  # the optimizer multiplies by γ, which is inside already
        if self._scale != 1:
            direction = direction * self._scale  # which the scaler takes out again
        layout.set_gradient(direction)
        if isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.SparseAdam):
            for p in layout.parameters:
                assert p.grad is not None
                p.grad = p.grad.to_sparse(min(1, p.ndim))  # the rows of an embedding that somebody's samples reached
        self._warn_of_unreached()

    def _warn_of_unreached(self) -> None:
        """Tell once of parameters that move though no loss depends on them."""
        if not (unreached := self._plain_engine.unreached) or not self.algorithm.moves_zeros:
            return
        names = ", ".join(self._layout.names[slot] for slot in sorted(unreached))
        self._warn_once(
            f"{self.algorithm.name}: no gradient reached {names}; a sign has no zero here, so these entries move by "
            "the learning rate every round",
            about="unreached parameters",
        )

    @property
    def _scaler(self) -> Any:
        """What scales losses in half precision; else None."""
        return getattr(self.precision_plugin, "scaler", None)

    @property
    def _scale(self) -> float:
        """What losses are multiplied by, before gradients are computed."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self._scaler is None else self._scaler.scale(loss)

    def _anybody_overflowed(self, gradients: WorkerGradients) -> bool:
        """Whether a worker's gradient, anywhere, is not finite."""
        overflowed = (~gradients.finite()).any().to(self._layout.vector)[None]
        return bool(self.world.maximum(overflowed)[0])

    def _learning_rate(self, optimizer: Any) -> float | Tensor:
        """γ: a number, or a vector (d,) where parameter groups differ."""
        groups = optimizer.param_groups
        rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
        by_tensor = [rates.get(id(p), float(groups[0]["lr"])) for p in self._layout.parameters]
        if len(set(by_tensor)) == 1:
            return by_tensor[0]
        vector = self._layout.vector
        return torch.repeat_interleave(
            vector.new_tensor(by_tensor), torch.tensor(self._layout.sizes, device=vector.device)
        )

    def _everyones_buffers(self) -> dict[str, list[Any]]:
        """What all M workers have of the tensors that steps write, by name. All processes take part."""
        local = self._buffers.moved()
        names = sorted({name for names in self.world.gather(local) for name in names})
        if not names:
            return {}
        rows = self._buffers.local(names)
        if self.world.size > len(self.world.local_ranks):
            rows = {name: [None if row is None else row.cpu() for row in each] for name, each in rows.items()}
        everyone = self.world.gather(rows)
        return {name: [row for rows in everyone for row in rows[name]] for name in names}

    @property
    def _is_fitting(self) -> bool:
        state = self._trainer.state
        return self._cohort is not None and state.fn is TrainerFn.FITTING and state.status is not TrainerStatus.FINISHED

    def on_validation_start(self) -> None:
        """While fitting, evaluate with the workers' average buffers."""
        if self._is_fitting:
            self._evaluated = self._everyones_buffers()
            self._buffers.put_mean(self._evaluated)
            self._serving = slice(None)

    def validation_step(self, batch: Any, *rest: Any, **kwargs: Any) -> Any:
        """Of a batch that some workers serve, with the average of their buffers."""
        tree, ranks = batch if isinstance(batch, Served) else (batch, slice(None))
        if self._is_fitting and ranks != self._serving:
            self._buffers.put_mean(self._evaluated, ranks)
            self._serving = ranks
        return super().validation_step(tree, *rest, **kwargs)

    def on_validation_end(self) -> None:
        """Train on with the workers' own."""
        if self._is_fitting:
            self._buffers.put_back()

    def on_train_end(self) -> None:
        """Leave the module with the workers' average buffers."""
        self._buffers.put_mean(self._everyones_buffers())

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's, with the workers' average buffers while fitting. All processes take part."""
        state = super().lightning_module_state_dict()
        if not self._is_fitting:
            return state
        averages = {name: mean(rows) for name, rows in self._everyones_buffers().items()}
        return {name: averages.get(self._buffers.names.get(name, name), value) for name, value in state.items()}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Add the cohort's state and the processes' random number generators. All ranks take part."""
        if "optimizer_states" in checkpoint:  # not in one that holds weights only
            checkpoint[CHECKPOINT_KEY] = {
                "buffers": {name: _together(rows) for name, rows in self._everyones_buffers().items()},
                "cohort": self.cohort.state_dict(),
                "anchor": None if self._anchor is None else vars(self._anchor),
                "engine": self._engine_used,
                "estimator": repr(self.estimator),
                "generators": self.world.gather(torch.get_rng_state()),
            }
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """The hook in which Lightning hands over the whole checkpoint.

        Raises:
            InputError: the checkpoint is of another number of workers, or of another recipe.
        """
        super().load_optimizer_state_dict(checkpoint)
        if (state := checkpoint.get(CHECKPOINT_KEY)) is None:
            return  # trained by another strategy: weights and optimizer go on, the cohort starts afresh
        if (given := state.get("estimator", repr(None))) != repr(self.estimator):
            raise InputError(f"estimator: {self.estimator}; the checkpoint holds {given}")
        self.cohort.load_state_dict(state["cohort"])
        self._buffers.load_rows(state["buffers"], self.world.local_ranks)
        if (anchor := state.get("anchor")) is not None:
            device = self._layout.vector.device
            vectors = {name: anchor[name].to(device) for name in ("parameters", "gradient")}
            self._anchor = Anchor(**vectors, epoch=anchor["epoch"])
        if self._engine_used == "auto":  # what was the fastest goes on, whatever is now
            self._engine_used = state.get("engine", "auto")
        if len(generators := state["generators"]) > (rank := self.world.local_ranks[0]):
            torch.set_rng_state(generators[rank])


class CompressedStrategy(_Compressed, SingleDeviceStrategy):
    """M workers simulated in this process.

    Args:
        algorithm: a recipe or the name of one.
        workers: M.
        link: the network whose seconds the ledger models.
        seed: of the workers' noise (dropout and the like), together with round and rank.
        engine: how gradients are computed: "loop", "joint", "vmap", or "auto" to choose in the first round.
        adversary: what Byzantine workers do, if there are any.
        estimator: SVRG or local SGD, if workers send other than the gradient of a batch.
        device: where; the Trainer's if None.
        options: settings of the recipe to be changed, such as `aggregator` or `density` (`bench.recipes.changed`), and
            arguments of Lightning's `SingleDeviceStrategy`.

    Raises:
        InputError: fewer than one worker; an unknown recipe; an option that nothing has.
    """

    def __init__(
        self,
        algorithm: Algorithm | str,
        workers: int = 10,
        link: LinkModel | None = None,
        seed: int = 0,
        engine: EngineName = "auto",
        adversary: Adversary | None = None,
        estimator: Estimator | None = None,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> None:
        super().__init__(algorithm, link, seed, engine, adversary, estimator, device=device or "cpu", **options)
        if not isinstance(workers, int) or workers < 1:
            raise InputError(f"workers: {workers!r}; an integer, at least 1, is needed")
        self._world = SimulatedWorld(workers)
        self._device_given = device is not None

    @property
    def world(self) -> World:
        return self._world

    @property
    def parallel_devices(self) -> None:
        """Lightning offers the Trainer's devices to a strategy that has none."""
        return None

    @parallel_devices.setter
    def parallel_devices(self, devices: Sequence[torch.device]) -> None:
        if len(devices) > 1:
            rank_zero_warn(f"devices: {len(devices)}; all workers are simulated on the first, {devices[0]}")
        if not self._device_given:
            self._root_device = devices[0]


class CompressedDDPStrategy(_Compressed, DDPStrategy):
    """M workers in M processes, one each, started by Lightning's launcher or torchrun.

    Args:
        algorithm: a recipe or the name of one.
        link: the network whose seconds the ledger models; the real one's are measured beside it.
        seed: of the workers' noise, together with round and rank.
        engine: how gradients are computed: "loop", "joint", "vmap", or "auto" to choose in the first round.
        adversary: what Byzantine workers do, if there are any.
        estimator: SVRG or local SGD, if workers send other than the gradient of a batch.
        timeout: how long to wait for another worker before the run ends with `WorkerLostError`.
        options: settings of the recipe to be changed, such as `aggregator` or `density` (`bench.recipes.changed`), and
            arguments of Lightning's `DDPStrategy`, such as `start_method`.

    Raises:
        InputError: an unknown recipe; an option that nothing has, or that a recipe takes the place of.
    """

    def __init__(
        self,
        algorithm: Algorithm | str,
        link: LinkModel | None = None,
        seed: int = 0,
        engine: EngineName = "auto",
        adversary: Adversary | None = None,
        estimator: Estimator | None = None,
        timeout: timedelta = timedelta(minutes=5),
        **options: Any,
    ) -> None:
        super().__init__(algorithm, link, seed, engine, adversary, estimator, timeout=timeout, **options)
        self.timeout = timeout

    @property
    def world(self) -> World:
        return ProcessWorld(self.global_rank, self.world_size, self.root_device, self.timeout)

    def _refuse_options(self, options: Mapping[str, Any]) -> None:
        for name in ("ddp_comm_hook", "ddp_comm_state", "ddp_comm_wrapper", "model_averaging_period"):
            if options.get(name) is not None:
                raise InputError(f"{name}: {options[name]!r}; recipes compress and average themselves, None is needed")
        # Of a wrapper there is not, and of no consequence.
        harmless = ("find_unused_parameters", "static_graph", "gradient_as_bucket_view", "bucket_cap_mb")
        super()._refuse_options({name: value for name, value in options.items() if name not in harmless})

    def configure_ddp(self) -> None:
        """No wrapper: gradients travel as messages."""

    def _share_initial_state(self, module: lightning.LightningModule) -> None:
        frozen = [p.data for p in module.parameters() if not p.requires_grad]
        with self.world.noticing_loss():
            for tensor in (self._layout.vector, *frozen, *module.buffers()):
                if tensor.layout is torch.strided:
                    dist.broadcast(tensor, src=0)
                else:
                    tensor.copy_(super().broadcast(tensor))

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        with self.world.noticing_loss():
            super().barrier(*args, **kwargs)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        with self.world.noticing_loss():
            return super().broadcast(obj, src)

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        with self.world.noticing_loss():
            return super().reduce(*args, **kwargs)

    def all_gather(self, *args: Any, **kwargs: Any) -> Tensor:
        with self.world.noticing_loss():
            return super().all_gather(*args, **kwargs)


def _over(direction: Tensor, learning_rate: float | Tensor) -> Tensor:
    """(d,) over γ; 0 where γ is, in which nothing moves."""
    if isinstance(learning_rate, Tensor):
        return torch.where(learning_rate == 0, 0.0, direction / learning_rate)
    return direction / learning_rate if learning_rate else torch.zeros_like(direction)


def _together(rows: Sequence[Any]) -> Any:
    """Rows as one tensor (M, …), if they are alike."""
    alike = all(isinstance(row, Tensor) and row.shape == rows[0].shape for row in rows)
    return torch.stack(list(rows)) if alike and rows[0].layout is torch.strided else list(rows)
