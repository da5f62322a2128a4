"""One process per worker.

Trainer(strategy="sasg_ddp", accelerator="cpu", devices=4)      # four processes, or launched by torchrun
"""

import signal
from datetime import timedelta
from typing import Any

import lightning
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import Tensor

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.collectives.choice import CollectiveName
from bench.collectives.processes import ProcessWorld
from bench.errors import WorkerLostError
from bench.estimators import Estimator
from bench.gradients.engines import EngineName
from bench.gradients.layout import Layout
from bench.strategies.hooks import Compressed
from bench.strategies.launcher import ProcessLauncher
from bench.strategies.refusals import refuse_hooks


class CompressedDDPStrategy(Compressed, DDPStrategy):
    """M workers in M processes, one each, started by Lightning's launcher or torchrun.

    Args:
        algorithm: a recipe or the name of one.
        seed: of the workers' noise, together with round and rank.
        engine: how gradients are computed: "loop", "joint", "vmap", or "auto" to choose in the first round.
        adversary: what Byzantine workers send, if there are any.
        estimator: SVRG or local SGD, if workers send something other than the gradient of a batch.
        timeout: how long to wait for another worker before the run ends with `WorkerLostError`.
        collective: how messages travel: "sharded", where every worker serves a slice of the vector; "gather", where
            each message goes to everybody; "auto" for that of the two which should take less time; or "allreduce",
            where messages are added up on their way. The results are the same, but with "allreduce" for last bits.
        options: settings of the recipe to change, such as `aggregator` or `density` (`bench.recipes.changed`), and
            arguments of Lightning's `DDPStrategy`, such as `start_method`.

    Raises:
        InputError: an unknown recipe; an unknown option, or one that the recipe replaces.
    """

    def __init__(
        self,
        algorithm: Algorithm | str,
        seed: int = 0,
        engine: EngineName = "auto",
        adversary: Adversary | None = None,
        estimator: Estimator | None = None,
        timeout: timedelta = timedelta(minutes=5),
        collective: CollectiveName = "auto",
        **options: Any,
    ) -> None:
        refuse_hooks(options)
        super().__init__(algorithm, seed, engine, adversary, estimator, timeout=timeout, **options)
        self.timeout = timeout
        self.ending_signals = (signal.SIGTERM,)
        self.collective = collective

    @property
    def world(self) -> ProcessWorld:
        return ProcessWorld(self.global_rank, self.world_size, self.root_device, self.timeout)

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        if isinstance(self._launcher, _SubprocessScriptLauncher):
            assert self.cluster_environment is not None
            self._launcher = ProcessLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        try:
            super().setup_distributed()
        except dist.DistError as error:
            told = f"worker {self.global_rank}: not all {self.world_size} workers came within"
            raise WorkerLostError(f"{told} {self.timeout.total_seconds():g} s ({error})") from error

    def configure_ddp(self) -> None:
        """Add no DDP wrapper: gradients travel as messages."""

    def _share_initial_state(self, module: lightning.LightningModule, layout: Layout) -> None:
        frozen = [p.data for p in module.parameters() if not p.requires_grad]
        self.world.share((layout.vector, *frozen, *module.buffers()))

    def on_train_end(self) -> None:
        super().on_train_end()
        world = self.cohort.world
        if isinstance(world, ProcessWorld) and world.patience is not None:
            world.patience.cancel()

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
