"""The engine of a fit: chosen on its first batch, the same in all processes, and used until one of them falls back."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning
from lightning.pytorch.plugins.precision import Precision

from bench.collectives.report import Report
from bench.estimators import Estimator
from bench.estimators.base import EstimatingEngine
from bench.gradients.batches import Shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines import Engine, FallingBack, Trial, make_engine
from bench.gradients.engines.base import Step
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise


class ChosenEngine:
    """The engine that computes the gradients of the module's steps, and around it an estimator's, if there is one.

    Args:
        module: whose steps are run.
        layout: of its parameters.
        buffers: what steps write, one row per worker.
        asked: the name that the user gave.
        estimator: SVRG or local SGD, if workers send something other than the gradient of a batch.
        precision: the Trainer's.
        adaptive: whether the upload rule compares gradients.
        agreed: a value -> rank 0's value, in every process.

    Attributes:
        name: of the engine of steps; "auto" until it is chosen.
        engine: computes what workers send; None before the first batch.
        estimating: the same if it is the estimator's; otherwise None.
    """

    def __init__(
        self,
        module: lightning.LightningModule,
        layout: Layout,
        buffers: WorkerBuffers,
        asked: str,
        estimator: Estimator | None,
        precision: Precision,
        adaptive: bool,
        agreed: Callable[[str], str],
    ) -> None:
        self.module = module
        self.layout = layout
        self.buffers = buffers
        self.name = self.asked = asked
        self.estimator = estimator
        self.precision = precision
        self.adaptive = adaptive
        self.agreed = agreed
        self.engine: Engine | None = None
        self.estimating: EstimatingEngine | None = None
        self._estimating_state: dict[str, Any] = {}

    def on(self, step: Step, shards: Shards, noise: Sequence[Noise]) -> Engine:
        """The engine for this batch; the first one is tried on, if the choice was left to us."""
        if self.engine is None:
            if self.asked == "auto":
                if self.name == "auto":
                    self.name = self.agreed(self._fitting(step, shards, noise))
                self._plain: Engine = FallingBack(self.name, self.module, self.layout, self.buffers)
            else:
                self._plain = make_engine(self.name, self.module, self.layout, self.buffers)
            self.engine = self._plain
            if self.estimator is not None:
                self.engine = self.estimating = self.estimator.around(self._plain)
                self.estimating.load_state_dict(self._estimating_state)
        return self.engine

    def _fitting(self, step: Step, shards: Shards, noise: Sequence[Noise]) -> str:
        """The name of the engine that suits this batch.

        The loop where there is but one worker: others have nothing to join and, on CPUs, give the same gradients. Lazy
        rules also compare gradients, whose distances differ in last bits, so they use one engine in every world.
        """
        if len(noise) == 1 and self.layout.vector.device.type == "cpu" and not self.adaptive:
            return "loop"
        exact = self.precision.precision == "32-true"
        return Trial(self.module, self.layout, self.buffers, step, shards, noise, exact, self.adaptive).choose()

    @property
    def unreached(self) -> set[int]:
        """Slots of the parameters that got no gradient from autograd in some round so far."""
        return self._plain.unreached

    @property
    def fell_back(self) -> bool:
        """Whether this process uses the loop although another engine was chosen."""
        return isinstance(self._plain, FallingBack) and self._plain.name != self.name

    def follow(self, report: Report) -> None:
        """Use the loop from now on, if any worker had to."""
        if report.fell_back.any():
            assert isinstance(self._plain, FallingBack)
            self._plain.fall_back()
            self.name = self._plain.name

    def state_dict(self) -> dict[str, Any]:
        """The choice and the estimator's state, the same in every process."""
        state = self._estimating_state if self.estimating is None else self.estimating.state_dict()
        return {"engine": self.name, "estimator": repr(self.estimator), "estimating": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from `state_dict`. Call before the first batch."""
        anchor = {"anchor": state["anchor"]} if "anchor" in state else {}  # the place in older checkpoints
        self._estimating_state = state.get("estimating", anchor)
        if self.asked == "auto":  # keep the engine chosen then, whichever is fastest now
            self.name = state.get("engine", "auto")
