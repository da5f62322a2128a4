"""An algorithm is a recipe: compressor × feedback × upload rule × aggregator × downlink."""

from dataclasses import dataclass, field
from typing import Literal

from bench.aggregators import Aggregator
from bench.compressors import Compressor, Identity
from bench.errors import InputError
from bench.feedback import Feedback
from bench.layout import Granularity
from bench.rules import UploadRule


@dataclass(frozen=True)
class Algorithm:
    """The parts of a method, all immutable: one recipe serves any number of workers and runs.

    Args:
        name: what results are filed under.
        compressor: what a worker sends.
        feedback: what it does with the rest.
        rule: when it sends.
        aggregator: what the server makes of M messages.
        downlink: what the server sends back to all.
        granularity: the compressor sees every tensor apart ("tensor") or the model as one vector ("model").
        units: workers send gradients g, or updates γg with the learning rate γ inside, where the error is (SASG).
        stale_scale: a skipper's old update carries the old γ ("faithful"), or is scaled to today's ("rescaled").

    Raises:
        InputError: parts that do not go together.
    """

    name: str
    compressor: Compressor
    feedback: Feedback
    rule: UploadRule
    aggregator: Aggregator
    downlink: Compressor = field(default_factory=Identity)
    granularity: Granularity = "tensor"
    units: Literal["gradient", "update"] = "gradient"
    stale_scale: Literal["faithful", "rescaled"] = "faithful"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("granularity", ("tensor", "model")),
            ("units", ("gradient", "update")),
            ("stale_scale", ("faithful", "rescaled")),
        ):
            if (given := getattr(self, name)) not in allowed:
                raise InputError(f"{name}: {given!r}; one of {', '.join(allowed)} is needed")
        if self.stale_scale == "rescaled" and self.units == "gradient":
            raise InputError(
                "stale_scale: 'rescaled'; gradients follow the learning rate anyway, units: update is needed"
            )
        if self.stale_scale == "rescaled" and not self.rule.adaptive:
            raise InputError("stale_scale: 'rescaled'; where everybody uploads nothing is stale, a lazy rule is needed")
        if self.feedback.keeps_error and isinstance(self.compressor, Identity):
            raise InputError(
                f"feedback: {type(self.feedback).__name__}; {type(self.compressor).__name__} leaves no error"
            )

    @property
    def sends_gradients(self) -> bool:
        """Whether messages are the gradients as they are: nothing compressed, nothing kept back."""
        return isinstance(self.compressor, Identity) and not self.feedback.keeps_error and self.units == "gradient"
