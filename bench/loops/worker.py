"""One worker of a group of processes, in a loop that computes gradients and steps optimizers itself."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.algorithm import Algorithm
from bench.collectives.agreement import agree, described, refused_together
from bench.collectives.choice import CollectiveName
from bench.collectives.processes import ProcessWorld
from bench.collectives.report import Report
from bench.errors import InputError
from bench.gradients.engines import RowGradients
from bench.gradients.engines.loop import DenseGradients
from bench.gradients.layout import Layout
from bench.gradients.overlaps import refuse_overlaps
from bench.gradients.trained import Trained
from bench.recipes import changed, load_recipe
from bench.round.cohort import Cohort
from bench.round.ledger import Ledger
from bench.round.rates import Rate, rate_of
from bench.round.spent import Spent
from bench.round.state import restore, state_of


class Worker:
    """This process's worker: its part of a recipe's state, and the rounds that it runs with the others.

    The module's trainable parameters become views of one vector; every worker starts from rank 0's parameters and
    buffers. Later on, buffers are each worker's own, as under DDP with `broadcast_buffers=False`. A worker that does
    not answer for the process group's timeout is lost, and `WorkerLostError` is raised.

    Args:
        module: to train, the same in every process of the default process group.
        algorithm: a recipe or the name of one.
        seed: of the workers' noise, together with round and rank.
        collective: how messages travel (`CompressedDDPStrategy`).
        options: settings of the recipe to change, such as `density` (`bench.recipes.changed`).

    Raises:
        InputError: there is no process group; an unknown recipe or option; processes differ; parameters that share
            memory, or that `Layout` refuses.
    """

    def __init__(
        self,
        module: nn.Module,
        algorithm: Algorithm | str,
        seed: int = 0,
        collective: CollectiveName = "auto",
        **options: Any,
    ) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError(
                f"{type(self).__name__}: there is no process group; torch.distributed.init_process_group must come "
                "first, in a process per worker (torchrun starts them)"
            )
        recipe = load_recipe(algorithm) if isinstance(algorithm, str) else algorithm
        self.algorithm, unknown = changed(recipe, options)
        for name, value in unknown.items():
            raise InputError(f"{name}: {value!r}; neither {self.algorithm.name} nor its parts have it")
        if self.algorithm.local_steps is not None:
            raise InputError(f"algorithm: {self.algorithm.name}; local steps need a Trainer, which runs them all")
        self.refuse(self.algorithm)
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.world = ProcessWorld(dist.get_rank(), dist.get_world_size(), device, _timeout(device))
        with refused_together(self.world):
            refuse_overlaps(module)
            self.layout = Layout(module.named_parameters())
        facts = {"algorithm": str(self.algorithm), "seed": seed, "collective": collective}
        agree(self.world, {**facts, **described(module)})
        trained = {id(p) for p in self.layout.parameters}
        others = [p.data for p in module.parameters() if id(p) not in trained]
        self.world.share((self.layout.vector, *others, *module.buffers()))
        self.cohort = Cohort(self.algorithm, self.world, self.layout, seed, collective=collective)
        self.report: Report | None = None
        self._epoch = 0
        self._row = torch.empty_like(self.layout.vector)[None]
        self._trained = Trained(module, self.layout)
        self._spent = Spent(self.cohort.ledger)

    def refuse(self, algorithm: Algorithm) -> None:
        """Raise InputError if this kind of loop cannot run a recipe."""

    @property
    def ledger(self) -> Ledger:
        """What has been sent so far, by all workers."""
        return self.cohort.ledger

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch, from 0: the thresholds of lazy rules follow the learning rate one epoch late."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The state of all workers and their server, the same in every process. All processes must call it."""
        return state_of(self.cohort)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, in this or another world.

        Raises:
            InputError: it is of another recipe or number of workers.
        """
        restore(self.cohort, state)

    def _gradient(self) -> Tensor:
        """(1, d): the gradient in `p.grad`; 0 where there is none. Valid until the next call."""
        for view, p in zip(self.layout.views(self._row[0]), self.layout.parameters, strict=True):
            if p.grad is None:
                view.zero_()
            else:
                view.copy_(p.grad.to_dense() if p.grad.is_sparse else p.grad)
        return self._row

    def _play(
        self,
        gradient: Tensor,
        num_backwards: int,
        gradients_at: Callable[[Tensor, Sequence[Tensor]], RowGradients],
        optimizer: torch.optim.Optimizer | None,
    ) -> Tensor:
        """Run a round from this worker's gradient (1, d). Returns the direction (d,), in units of gradients.

        Raises:
            InputError: the recipe has moments, and the optimizer would step by others besides; a parameter was
                replaced, added, frozen or unfrozen.
            NonFiniteError: a gradient is NaN or infinite. In every process alike.
        """
        if self.algorithm.moments is not None and optimizer is not None:
            self.algorithm.moments.refuse(optimizer, "optimizer", self.algorithm.name)
        self._trained.refuse_changes()
        self._trained.refuse_newcomers()
        rate = 1.0 if optimizer is None else rate_of(optimizer, self.layout)
        gradients = DenseGradients(gradient.new_zeros(1), gradient)
        gradients.num_backwards = num_backwards
        if not gradients.finite().all():
            gradients.losses.fill_(torch.nan)  # signs, for example, do not show it
        with self._spent.compressing():
            direction, report = self.cohort.round(
                self.layout.vector, gradients, self._spent.in_computing(gradients_at), rate, self._epoch
            )
        self.report = report._replace(loss=np.full_like(report.loss, np.nan))  # which a loop of one's own does not tell
        return Rate(rate).over(direction) if self.algorithm.units == "update" else direction


def _timeout(device: torch.device) -> timedelta:
    """How long the default process group waits, as given to `init_process_group`."""
    group = dist.group.WORLD
    assert group is not None
    return group._get_backend(device).options._timeout
