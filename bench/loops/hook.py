"""A communication hook of DistributedDataParallel, for loops that are somebody else's.

model = DistributedDataParallel(module)
bench.CompressionHook(model, "sparse", density=0.01)
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.autograd import Variable
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from bench.algorithm import Algorithm
from bench.collectives.choice import CollectiveName
from bench.errors import InputError
from bench.gradients.engines import RowGradients
from bench.loops.worker import Worker


class CompressionHook(Worker):
    """Registers itself with a DDP module: its backward pass then leaves a round's direction in `p.grad`.

    DDP hands over its buckets one by one; a recipe needs the whole gradient, so it waits for the last. Messages are
    those of `CompressedAllReduce`, not one per bucket.

    Args:
        model: the wrapped module, in the default process group.
        algorithm: a recipe or the name of one.
        optimizer: of its parameters; needed where messages or thresholds contain the learning rate, and by recipes
            with moments.
        seed: of the workers' noise, together with round and rank.
        collective: how messages travel (`CompressedDDPStrategy`).
        options: settings of the recipe to change, such as `density` (`bench.recipes.changed`).

    Raises:
        InputError: DDP has another process group, ignores a parameter, or casts them itself; the recipe takes a second
            backward pass, which a hook cannot; an optimizer is needed; what `Worker` refuses.
    """

    def __init__(
        self,
        model: DistributedDataParallel,
        algorithm: Algorithm | str,
        optimizer: torch.optim.Optimizer | None = None,
        seed: int = 0,
        collective: CollectiveName = "auto",
        **options: Any,
    ) -> None:
        if not isinstance(model, DistributedDataParallel):
            raise InputError(f"model: {type(model).__name__}; a DistributedDataParallel is needed")
        _refuse_model(model)
        self.model = model
        self.optimizer = optimizer
        super().__init__(model.module, algorithm, seed, collective, **options)
        self._waiting: list[tuple[GradBucket, Future[Tensor]]] = []
        model.register_comm_hook(None, self._take)

    def refuse(self, algorithm: Algorithm) -> None:
        rule = type(algorithm.rule).__name__
        if algorithm.rule.second_pass:
            raise InputError(
                f"algorithm: {algorithm.name}; {rule} takes a second backward pass, which a hook of DDP cannot: "
                "bench.CompressedAllReduce can"
            )
        if self.optimizer is None and (algorithm.units == "update" or algorithm.rule.adaptive):
            whose = "messages" if algorithm.units == "update" else f"thresholds of {rule}"
            raise InputError(f"optimizer: None; {whose} contain the learning rate, the optimizer is needed")
        if algorithm.moments is not None:
            if self.optimizer is None:
                raise InputError(f"optimizer: None; {algorithm.name} needs one without moments, to see that it is")
            algorithm.moments.refuse(self.optimizer, "optimizer", algorithm.name)

    def _take(self, state: None, bucket: GradBucket) -> Future[Tensor]:
        """Keep a bucket; after the last one, run the round.

        Raises:
            InputError: processes may have unequal numbers of batches.
        """
        if self.model._join_config.enable:
            raise InputError("join: a round needs every process; equal numbers of batches are needed, without join()")
        buffer = bucket.buffer()
        future = Future(devices=[] if buffer.device.type == "cpu" else [buffer.device])
        self._waiting.append((bucket, future))
        if bucket.is_last():
            waiting, self._waiting = self._waiting, []
            self._answer(waiting)
        return future

    def _answer(self, waiting: Sequence[tuple[GradBucket, Future[Tensor]]]) -> None:
        """Run a round from the local gradients, which DDP has just copied to its buckets, and leave its direction in
        `p.grad`. What DDP writes there from the buckets is replaced: it may not know a parameter's memory order."""
        views = self.layout.views(self._play(self._gradient(), 1, _no_second_pass, self.optimizer))
        for bucket, future in waiting:
            future.set_result(bucket.buffer())
        # DDP's own callback at the end of the backward pass is queued after this one, and another from within it later.
        queue = Variable._execution_engine.queue_callback
        queue(partial(queue, partial(self._complete, views)))

    def _complete(self, views: Sequence[Tensor]) -> None:
        """Set the gradients, of which DDP leaves out those of parameters that no process used: errors may be sent."""
        for p, view in zip(self.layout.parameters, views, strict=True):
            if p.grad is None:
                p.grad = view
            else:
                p.grad.copy_(view)


def _refuse_model(model: DistributedDataParallel) -> None:
    everybody = list(range(dist.get_world_size()))
    if (ranks := dist.get_process_group_ranks(model.process_group)) != everybody:
        raise InputError(f"process_group: of ranks {ranks}; DDP's default is needed, of {everybody}")
    if model.mixed_precision is not None:  # it gives parameters the memory back that they had before the hook
        raise InputError(f"mixed_precision: {model.mixed_precision}; DDP's must be None, torch.autocast can be used")
    for name, p in model.module.named_parameters():
        if p.requires_grad and name in model.parameters_to_ignore:
            raise InputError(f"parameters: {name} is ignored by DDP; it must be frozen, or not ignored")


def _no_second_pass(rows: Tensor, parameters: Sequence[Tensor]) -> RowGradients:
    raise AssertionError("refused beforehand")
