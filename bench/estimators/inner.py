"""The engine of local steps: every worker takes some with its own state of the module's optimizer."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from bench.adversary import Adversary
from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.estimators.base import EstimatingEngine, Estimator, Inner, Outlook
from bench.estimators.local_sgd import LocalGradients
from bench.gradients.batches import Shards
from bench.gradients.engines import Engine
from bench.gradients.engines.base import Step
from bench.gradients.traces import logging_once, merged
from bench.kernels.noise import Noise
from bench.local_steps import LocalSteps


@dataclass(frozen=True)
class InnerSteps(Estimator):
    """The estimator of a recipe with local steps.

    Args:
        steps: the recipe's.
    """

    steps: LocalSteps

    @property
    def num_parts(self) -> int:
        return self.steps.num_steps

    def around(self, plain: Engine) -> "InnerEngine":
        return InnerEngine(plain, self.steps)

    def refuse(self, algorithm: Algorithm, adversary: Adversary | None, optimizer: torch.optim.Optimizer) -> None:
        if isinstance(optimizer, torch.optim.SparseAdam):
            raise InputError("optimizer: SparseAdam; local steps need one that steps by a dense gradient")


class InnerEngine(EstimatingEngine):
    """Gives Δ_m = w − w_m, where worker m has come to w_m from w by steps of its own.

    Args:
        plain: the engine that computes gradients of batches.
        steps: the recipe's.

    Attributes:
        states: of the optimizer, one for each local worker; empty before the first round.
    """

    def __init__(self, plain: Engine, steps: LocalSteps) -> None:
        super().__init__(plain)
        self.steps = steps
        self.states: list[Any] = []
        self._saved: Sequence[Any] = ()
        self._outlook: Outlook | None = None

    def prepare(self, outlook: Outlook) -> None:
        if not self.states:
            ranks, saved = [origin.rank for origin in outlook.noise], self._saved
            optimizer = outlook.inner.optimizer
            self.states = [_restored(optimizer, saved[rank]) if saved else defaultdict(dict) for rank in ranks]
        self._outlook = outlook

    def gradients(
        self, step: Step, shards: Shards, noise: Sequence[Noise], parameters: Sequence[Tensor] | None = None
    ) -> LocalGradients:
        assert parameters is None, "upload rules that look back are refused with local steps"
        outlook, vector = self._outlook, self.layout.vector
        assert outlook is not None
        errors = outlook.kept[:, 0] if self.steps.apart else vector.new_zeros(len(noise), 1)
        at = [vector - error for error in errors]  # memory of its own for each, as in a process of its own
        starts, losses = torch.stack(at), []
        extras: list[Sequence[Mapping[str, Any]]] = []
        with logging_once(self.module):  # for all steps together
            for h, part in enumerate(shards.parts(self.steps.num_steps)):
                if h:
                    outlook.inner.between_steps()
                    self.buffers.begin_round()
                origins = [origin._replace(round=origin.round * self.steps.num_steps + h) for origin in noise]
                gradients = self.plain.gradients(step, part, origins, at)
                losses.append(gradients.losses)
                extras.append(gradients.extras)
                for row, worker in enumerate(at):
                    self._step(outlook.inner, row, worker, gradients.dense(torch.tensor([row]))[0])
        returned = [merged(of_worker) for of_worker in zip(*extras, strict=True)]
        return LocalGradients(
            torch.stack(losses).mean(dim=0), starts.sub_(torch.stack(at)), self.steps.num_steps, returned
        )

    def _step(self, inner: Inner, row: int, at: Tensor, gradient: Tensor) -> None:
        """One worker's step, which moves its parameters `at` (d,) in place."""
        with self.layout.bound_to(at):
            self.layout.set_gradient(gradient)
            inner.optimizer.state = self.states[row]
            inner.step()

    def gradients_at(
        self, parameters: Sequence[Tensor], rows: Sequence[int], step: Step, shards: Shards, noise: Sequence[Noise]
    ) -> LocalGradients:
        raise AssertionError("upload rules that look back are refused with local steps")

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state at each of all M workers, under "rows". All processes must call it."""
        if self._outlook is None:
            return {"rows": self._saved}
        optimizer, rows = self._outlook.inner.optimizer, []
        for state in self.states:
            optimizer.state = state
            rows.append(tree_map_only(Tensor, Tensor.cpu, optimizer.state_dict()["state"]))
        return {"rows": [row for rows in self._outlook.gather(rows) for row in rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state.get("rows", ())


def _restored(optimizer: torch.optim.Optimizer, saved: dict[int, Any]) -> Any:
    """The state of an optimizer that its `state_dict` had under "state"."""
    optimizer.load_state_dict({**optimizer.state_dict(), "state": saved})
    return optimizer.state
