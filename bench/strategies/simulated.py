"""All workers simulated in this process.

Trainer(strategy="sasg")                                        # ten workers
Trainer(strategy=CompressedStrategy("sasg", workers=4))
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.collectives.simulated import SimulatedWorld
from bench.collectives.world import World
from bench.errors import InputError
from bench.estimators import Estimator
from bench.gradients.engines import EngineName
from bench.strategies.hooks import Compressed


class CompressedStrategy(Compressed, SingleDeviceStrategy):
    """M workers simulated in this process.

    Args:
        algorithm: a recipe or the name of one.
        workers: M.
        seed: of the workers' noise (dropout and the like), together with round and rank.
        engine: how gradients are computed: "loop", "joint", "vmap", or "auto" to choose in the first round.
        adversary: what Byzantine workers send, if there are any.
        estimator: SVRG or local SGD, if workers send something other than the gradient of a batch.
        device: where to compute; the Trainer's if None.
        options: settings of the recipe to change, such as `aggregator` or `density` (`bench.recipes.changed`), and
            arguments of Lightning's `SingleDeviceStrategy`.

    Raises:
        InputError: fewer than one worker; an unknown recipe; an unknown option.
    """

    def __init__(
        self,
        algorithm: Algorithm | str,
        workers: int = 10,
        seed: int = 0,
        engine: EngineName = "auto",
        adversary: Adversary | None = None,
        estimator: Estimator | None = None,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> None:
        super().__init__(algorithm, seed, engine, adversary, estimator, device=device or "cpu", **options)
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
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
