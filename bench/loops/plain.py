"""Plain PyTorch loops: one object between `backward()` and `step()`, in a process per worker.

sync = bench.CompressedAllReduce(model, "sparse", density=0.01)
for x, y in batches:
    optimizer.zero_grad()
    loss_of(model(x), y).backward()
    sync(optimizer)
    optimizer.step()
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.algorithm import Algorithm
from bench.collectives.choice import CollectiveName
from bench.collectives.report import Report
from bench.errors import InputError
from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines import RowGradients
from bench.gradients.engines.accumulated import SummedRows
from bench.gradients.engines.loop import LoopEngine
from bench.gradients.randomness import lent, seed
from bench.kernels.noise import Noise
from bench.loops.worker import Worker

NOTHING = Shards(1, [], lambda columns: None)
"""Batches of one worker whose closure knows its own."""


class CompressedAllReduce(Worker):
    """Replaces the gradients in `p.grad` by what the workers' messages add up to. Same bits as under Lightning.

    Several may live side by side, of several modules (a GAN) or recipes; all processes must call them in one order.

    Args:
        module: to train, the same in every process of the default process group.
        algorithm: a recipe or the name of one.
        seed: of the workers' noise, together with round and rank.
        collective: how messages travel (`CompressedDDPStrategy`).
        options: settings of the recipe to change, such as `density` (`bench.recipes.changed`).

    Raises:
        InputError: there is no process group; an unknown recipe or option; processes differ.
    """

    def __init__(
        self,
        module: nn.Module,
        algorithm: Algorithm | str,
        seed: int = 0,
        collective: CollectiveName = "auto",
        **options: Any,
    ) -> None:
        super().__init__(module, algorithm, seed, collective, **options)
        self._engine = LoopEngine(module, self.layout, WorkerBuffers(module, 1))
        self._closures: list[tuple[Callable[[], Tensor], Noise]] = []
        self._seeded: set[int] = set()
        self._num_backwards = 0
        self._waits = False

    def __call__(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor] | None = None) -> Report | None:
        """Run a round, from the gradients in `p.grad`, and write its direction there.

        Args:
            optimizer: of these parameters; its learning rate is used where messages or thresholds contain it.
            closure: computes the loss of this batch again, for lazy rules, which compare with its gradient at older
                parameters. It calls no `backward()`. What it changes in buffers is undone.

        Returns:
            The reports of all workers, in which losses are NaN, as nobody tells them; None inside `no_sync`, where
            nothing is sent yet.

        Raises:
            InputError: a closure is needed; it draws random numbers outside of `same_noise`.
            NonFiniteError: a gradient is NaN or infinite. In every process alike.
        """
        if closure is None and self.algorithm.rule.second_pass:
            raise InputError(
                f"closure: None; {type(self.algorithm.rule).__name__} takes a second gradient of the batch, a function "
                "that computes its loss is needed"
            )
        if closure is not None:
            self._closures.append((closure, self._noise))
        self._num_backwards += 1
        if self._waits:
            return None
        try:
            direction = self._play(self._gradient(), self._num_backwards, self._gradients_at, optimizer)
        finally:
            self._closures, self._num_backwards, self._seeded = [], 0, set()
        self.layout.set_gradient(direction)
        return self.report

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within, calls send nothing: gradients add up in `p.grad` until the next call outside."""
        before, self._waits = self._waits, True
        try:
            yield
        finally:
            self._waits = before

    @contextlib.contextmanager
    def same_noise(self) -> Iterator[None]:
        """Around the forward pass of a module with dropout or the like: a lazy rule's second pass draws the same.

        Random numbers are then those that a worker draws under Lightning. The user's generators are not disturbed.
        """
        device = self.layout.vector.device
        with lent(device):
            seed(self._noise, device)
            self._seeded.add(self._noise.part)
            yield

    @property
    def _noise(self) -> Noise:
        return Noise(self.cohort.seed, self.ledger.rounds, self.world.rank, self._num_backwards)

    def _gradients_at(self, rows: Tensor, parameters: Sequence[Tensor]) -> RowGradients:
        self._engine.buffers.begin_round()  # what the first passes made of them is the worker's
        parts = [
            self._engine.gradients_at(parameters, rows.tolist(), self._step(closure, noise.part), NOTHING, [noise])
            for closure, noise in self._closures
        ]
        return parts[0] if len(parts) == 1 else SummedRows(parts, 1)

    def _generator_state(self) -> Tensor:
        """Of the generators from which the module may draw."""
        device, states = self.layout.vector.device, [torch.get_rng_state()]
        if device.type != "cpu":
            states.append(torch.get_device_module(device).get_rng_state(device))
        return torch.cat(states)

    def _step(self, closure: Callable[[], Tensor], part: int) -> Callable[[Any], Tensor]:
        def step(_: Any) -> Tensor:
            before = self._generator_state()
            loss = closure()
            if part not in self._seeded and not torch.equal(self._generator_state(), before):
                raise InputError(
                    "closure: it draws random numbers, others than the first pass; `with sync.same_noise():` is needed "
                    "around the forward pass"
                )
            return loss

        return step
