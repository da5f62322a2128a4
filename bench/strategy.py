"""The Lightning plug-in: any LightningModule, trained by a recipe.

    import bench
    Trainer(strategy="sasg")                                        # ten workers simulated in this process
    Trainer(strategy=CompressedStrategy("sasg", workers=4))
    Trainer(strategy="sasg_ddp", accelerator="cpu", devices=4)      # four processes, or launched by torchrun

In automatic optimisation Lightning calls `training_step`, `zero_grad`, `backward` and the optimizer, in this order.
`training_step` computes the workers' losses and gradients; `backward` plays the round and leaves the direction
in `p.grad`. Clipping, optimizers, schedulers and callbacks go on working as ever.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.batches import Served, WholeEpoch, deal, pick
from bench.buffers import WorkerBuffers
from bench.engines import Engine, EngineName, RowGradients, Trial, make_engine
from bench.engines.base import Step
from bench.errors import InputError
from bench.estimator import Estimator
from bench.layout import Layout
from bench.ledger import Ledger, Report
from bench.link import LinkModel, StarLink
from bench.local_sgd import LocalEngine, LocalSGD
from bench.noise import Noise
from bench.recipes import load_recipe
from bench.refusals import refuse_fit
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.algorithm = load_recipe(algorithm) if isinstance(algorithm, str) else algorithm
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
        module = self.lightning_module
        assert module is not None
        refuse_fit(trainer, module, self.precision_plugin)
        self._layout = Layout(module.named_parameters())
        self._trained = [(name, p, p.requires_grad) for name, p in module.named_parameters()]
        self._share_initial_state(module)
        self._buffers = WorkerBuffers(module, len(self.world.local_ranks))
        super().setup_optimizers(trainer)
        if len(self.optimizers) != 1:
            raise InputError(f"optimizers: {len(self.optimizers)}; exactly 1 is needed")
        if self.estimator is not None:
            self.estimator.refuse(self.algorithm, self.adversary, self.optimizers[0])
        self._engine, self._engine_used, self._anchor = None, self.engine_name, None
        self._cohort = Cohort(self.algorithm, self.world, self.link, self._layout, self.seed, self.adversary)

    def _share_initial_state(self, module: lightning.LightningModule) -> None:
        """Start every worker from rank 0's parameters."""

    def training_step(self, batch: Any, *rest: Any, **kwargs: Any) -> Tensor:
        """Losses and gradients of the local workers; returns the mean loss, without a graph."""
        module, ranks = self.lightning_module, self.world.local_ranks
        assert module is not None
        for name, parameter, trained in self._trained:
            if parameter.requires_grad != trained:
                became = f"{parameter.requires_grad} during fit; what is trained is settled when it starts"
                raise InputError(f"requires_grad: {name} became {became}")
        shards = deal(batch, len(ranks))
        noise = [Noise(self.seed, self.ledger.rounds, rank) for rank in ranks]

        def step(shard: Any) -> Tensor:
            with self.precision_plugin.train_step_context():  # anew each time: autocast keeps casts of the weights
                return _loss(module.training_step(shard, *rest, **kwargs))

        if self._engine is None:
            if self._engine_used == "auto":
                exact = self.precision_plugin.precision == "32-true"
                trial = Trial(module, self._layout, self._buffers, step, shards, noise, exact)
                self._engine_used = self.broadcast(trial.choose())  # the same in every process
            self._engine = make_engine(self._engine_used, module, self._layout, self._buffers)
            if self.estimator is not None:
                self._engine = self.estimator.around(self._engine)
        if isinstance(self._engine, SVRGEngine):
            self._engine.anchor = self._anchor = self._moved_anchor(self._engine, step, noise)
        if isinstance(self._engine, LocalEngine):
            assert isinstance(self.estimator, LocalSGD)
            rate = self._learning_rate(self.optimizers[0])
            self._engine.learning_rate = self.estimator.learning_rate(rate, self.algorithm.aggregator, self.world.size)
        gradients = self._engine.gradients(step, shards, noise)
        self._pass = (step, shards, noise, gradients)
        return gradients.losses.mean()

    def _moved_anchor(self, engine: SVRGEngine, step: Step, noise: Sequence[Noise]) -> Anchor:
        """SVRG's anchor in this round: the last one, or a new one here, paid for by all workers."""
        assert isinstance(self.estimator, SVRG)
        module, anchor = self.lightning_module, self._anchor
        assert module is not None
        trainer = module.trainer
        if anchor is not None and trainer.current_epoch < anchor.epoch + self.estimator.interval:
            return anchor
        loader = trainer.train_dataloader
        batches: Any = loader.whole_epoch() if isinstance(loader, WholeEpoch) else loader
        arrived = (
            module._apply_batch_transfer_handler(batch, self.root_device, 0) for batch in batches
        )  # as in training
        shards = (deal(batch, len(noise)) for batch in arrived)
        rows, num_batches = engine.full_gradients(step, shards, noise)
        return Anchor(self._layout.vector.clone(), self.cohort.average(rows, num_batches), trainer.current_epoch)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Play the round and write the direction to `p.grad`."""
        module, trainer = self.lightning_module, self.lightning_module.trainer  # pyright: ignore[reportOptionalMemberAccess]
        assert module is not None
        self.pre_backward(closure_loss)
        closure_loss = self.precision_plugin.pre_backward(closure_loss, module)
        step, shards, noise, gradients = self._pass
        del self._pass

        def gradients_at(rows: Tensor, parameters: Sequence[Tensor]) -> RowGradients:
            assert self._engine is not None
            picked = rows.tolist()
            return self._engine.gradients_at(parameters, picked, step, pick(shards, rows), [noise[r] for r in picked])

        learning_rate = self._learning_rate(optimizer)
        direction, self._report = self.cohort.round(
            self._layout.vector, gradients, gradients_at, learning_rate, trainer.current_epoch, self.gauged
        )
        if self.algorithm.units == "update":
            direction = direction / learning_rate  # the optimizer multiplies by γ, which is inside already
        self._layout.set_gradient(direction)
        closure_loss = self.precision_plugin.post_backward(closure_loss, module)
        self.post_backward(closure_loss)
        return closure_loss

    def _learning_rate(self, optimizer: Any) -> float | Tensor:
        """γ: a number, or a vector (d,) where parameter groups differ."""
        groups = optimizer.param_groups
        rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
        by_tensor = [rates.get(id(p), float(groups[0]["lr"])) for p in self._layout.parameters]
        if 0 in by_tensor and (self.algorithm.units == "update" or self.algorithm.rule.adaptive):
            raise InputError(f"lr: 0; {self.algorithm.name} divides by the learning rate, one above 0 is needed")
        if len(set(by_tensor)) == 1:
            return by_tensor[0]
        vector = self._layout.vector
        return torch.repeat_interleave(
            vector.new_tensor(by_tensor), torch.tensor(self._layout.sizes, device=vector.device)
        )

    def _average_buffers(self) -> dict[str, Tensor]:
        """Give the module what stands for all workers: to be evaluated, saved, and left to the user.

        Returns the buffers of all M workers, (M, …) by name.
        """
        if not self._buffers.rows:
            return {}
        everyone = self.world.gather_rows(self._buffers.state_dict())
        self._buffers.average(everyone)
        return everyone

    def on_validation_start(self) -> None:
        """Evaluate with the workers' average buffers."""
        if self._cohort is not None:  # not without a fit
            self._everyones_buffers, self._serving = self._average_buffers(), slice(None)

    def validation_step(self, batch: Any, *rest: Any, **kwargs: Any) -> Any:
        """Of a batch that some workers serve, with the average of their buffers."""
        tree, ranks = batch if isinstance(batch, Served) else (batch, slice(None))
        self._serve(ranks)
        return super().validation_step(tree, *rest, **kwargs)

    def on_validation_end(self) -> None:
        """Leave the module with the average of all."""
        self._serve(slice(None))

    def _serve(self, ranks: slice) -> None:
        """Evaluate with the average buffers of these workers from now on."""
        if self._cohort is not None and ranks != self._serving:
            self._buffers.average(self._everyones_buffers, ranks)
            self._serving = ranks

    def on_train_end(self) -> None:
        """Leave the module with the workers' average buffers."""
        self._average_buffers()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Add the cohort's state and the processes' random number generators. All ranks take part."""
        if "optimizer_states" in checkpoint:  # not in one that holds weights only
            checkpoint[CHECKPOINT_KEY] = {
                "buffers": self._average_buffers(),  # in place, and so in the weights that the checkpoint refers to
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
        self._buffers.load_state_dict(state["buffers"], self.world.local_ranks)
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

    Raises:
        InputError: fewer than one worker; an unknown recipe.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(algorithm, link, seed, engine, adversary, estimator, device=device or "cpu", **kwargs)
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
        kwargs: as of Lightning's `DDPStrategy`, such as `start_method`.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(algorithm, link, seed, engine, adversary, estimator, timeout=timeout, **kwargs)
        self.timeout = timeout

    @property
    def world(self) -> World:
        return ProcessWorld(self.global_rank, self.world_size, self.root_device, self.timeout)

    def configure_ddp(self) -> None:
        """No wrapper: gradients travel as messages."""

    def _share_initial_state(self, module: lightning.LightningModule) -> None:
        frozen = [p.data for p in module.parameters() if not p.requires_grad]
        for tensor in (self._layout.vector, *frozen, *module.buffers()):
            dist.broadcast(tensor, src=0)


def _loss(output: Any) -> Tensor:
    """The loss in what a `training_step` returned, as Lightning allows it: a tensor, or a dict with "loss"."""
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, Tensor):
        raise InputError(
            f"training_step: returned {type(output).__name__}; a loss tensor or a dict with 'loss' is needed"
        )
    return loss
