"""An algorithm is defined by a recipe: compressor × feedback × upload rule × aggregator × downlink."""

from dataclasses import dataclass, replace
from typing import Literal, get_type_hints

from bench.aggregators import Aggregator, MajorityVote, Mean, SignOfMean
from bench.compressors import ChunkTopK, Compressor, Half, Identity, PowerSGD, Shortest, Sign
from bench.compressors.base import Segments
from bench.errors import InputError
from bench.feedback import Differences, ErrorFeedback, Feedback, MomentumCorrection
from bench.gradients.layout import Granularity
from bench.kinds import refuse_kind
from bench.local_steps import LocalSteps
from bench.moments import Moments
from bench.rules import Always, UploadRule


@dataclass(frozen=True)
class Algorithm:
    """The parts of a method. All are immutable, so one recipe serves any number of workers and runs.

    Args:
        name: the name under which results are stored.
        compressor: what a worker sends.
        feedback: what a worker keeps from one round to the next.
        rule: when a worker uploads.
        aggregator: how the server combines M messages.
        downlink: the compressor of the server's answer; if None, the aggregator's own, which is lossless.
        downlink_feedback: what the server keeps of what a lossy answer leaves out; None keeps nothing.
        granularity: the compressor treats every tensor separately ("tensor") or the model as one vector ("model").
        units: workers send gradients g ("gradient"), or updates γg ("update"), so that the error includes the learning
            rate γ (SASG).
        local_steps: those of a round, with the module's own optimizer, and the outer step; None takes the gradient of a
            batch.
        moments: Adam's, which workers send in place of gradients and step by; None steps by the answer.
        stale_scale: when a worker skips, its old update keeps the old γ ("faithful") or is rescaled to the current γ
            ("rescaled").

    Raises:
        InputError: a part is of another type, or the parts are incompatible.
    """

    name: str
    compressor: Compressor
    feedback: Feedback
    rule: UploadRule
    aggregator: Aggregator
    downlink: Compressor | None = None
    downlink_feedback: Feedback | None = None
    granularity: Granularity = "tensor"
    units: Literal["gradient", "update"] = "gradient"
    stale_scale: Literal["faithful", "rescaled"] = "faithful"
    local_steps: LocalSteps | None = None
    moments: Moments | None = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            refuse_kind(name, getattr(self, name), hint)
        for name, allowed in (
            ("granularity", ("tensor", "model")),
            ("units", ("gradient", "update")),
            ("stale_scale", ("faithful", "rescaled")),
        ):
            if (given := getattr(self, name)) not in allowed:
                raise InputError(f"{name}: {given!r}; one of {', '.join(allowed)} is needed")
        if self.stale_scale == "rescaled" and self.units == "gradient":
            raise InputError(
                "stale_scale: 'rescaled'; gradients are multiplied by the current learning rate anyway, "
                "units: update is needed"
            )
        if self.stale_scale == "rescaled" and not self.rule.adaptive:
            raise InputError("stale_scale: 'rescaled'; nothing is stale if every worker uploads, a lazy rule is needed")
        feedback, compressor = type(self.feedback).__name__, type(self.compressor).__name__
        if self.feedback.keeps_error and self.compressor.lossless:
            raise InputError(f"feedback: {feedback}; {compressor} leaves no error")
        contracts, votes = self.compressor.contraction((1,)) is not None, isinstance(self.aggregator, MajorityVote)
        bounded = contracts or self.compressor.error_bound((1,)) is not None
        if isinstance(self.feedback, ErrorFeedback) and not bounded:
            raise InputError(f"feedback: {feedback}; {compressor} does not contract, so the error would grow")
        if isinstance(self.feedback, Differences):
            if votes:
                raise InputError(f"aggregator: MajorityVote; {feedback} must be summed, Sum or Mean is needed")
            if self.units == "update":
                raise InputError(f"units: 'update'; {feedback} would contain old learning rates, gradient is needed")
            if self.feedback.rate < 1 and self.rule.adaptive:
                raise InputError(
                    f"rate: {self.feedback.rate}; {type(self.rule).__name__} reuses old uploads, 1 is needed"
                )
            if not self.compressor.contraction((1,)) and self.compressor.variance((1,)) is None:
                raise InputError(f"feedback: {feedback}; {compressor} neither contracts nor is unbiased")
        elif self.rule.drafts:
            raise InputError(f"rule: {type(self.rule).__name__}; feedback: {feedback}, Differences is needed")
        if isinstance(self.feedback, MomentumCorrection) and self.feedback.max_norm and self.units == "update":
            raise InputError(f"max_norm: {self.feedback.max_norm}; it clips gradients, units: gradient is needed")
        if self.units == "update" and (votes or not contracts):
            raise InputError("units: 'update'; a sign discards the learning rate in it, units: gradient is needed")
        if isinstance(self.aggregator, SignOfMean) and not isinstance(self.compressor, ChunkTopK):
            raise InputError(f"aggregator: SignOfMean; {compressor} tells not who sent an entry, ChunkTopK is needed")
        if isinstance(self.aggregator, SignOfMean) and self.rule.adaptive:
            rule = type(self.rule).__name__
            raise InputError(f"rule: {rule}; under SignOfMean old uploads would outweigh new ones, Always is needed")
        if self.compressor.follows and self.rule.adaptive:
            raise InputError(
                f"rule: {type(self.rule).__name__}; a message of {compressor} is valid for one round only, "
                "Always is needed"
            )
        if isinstance(self.compressor, PowerSGD) and self.granularity == "model":
            raise InputError(f"granularity: 'model'; {compressor} compresses matrices, tensor is needed")
        if self.broadcast.follows and votes:
            raise InputError(f"downlink: {type(self.broadcast).__name__}; it cannot carry votes, null is needed")
        if self.downlink_feedback is not None:
            self._refuse_downlink_feedback(votes)
        if self.local_steps is not None:
            self._refuse_local_steps(self.local_steps)
        if self.moments is not None:
            self._refuse_moments(votes)
        if self.aggregator == MajorityVote("zero") and isinstance(self.downlink, Sign):
            raise InputError(
                "ties: 'zero'; the downlink Sign has two values, plus or random (or the downlink Ternary) is needed"
            )

    def _refuse_downlink_feedback(self, votes: bool) -> None:
        kept, answer = f"downlink_feedback: {type(self.downlink_feedback).__name__}", type(self.broadcast).__name__
        if type(self.downlink_feedback) is not ErrorFeedback:
            raise InputError(f"{kept}; a server keeps errors only, ErrorFeedback or null is needed")
        if votes:
            raise InputError(f"{kept}; a vote has no error, as its size says nothing: Sum or Mean is needed")
        if isinstance(self.feedback, Differences):
            raise InputError(f"{kept}; Differences are added to what all know, an error would be added again")
        if self.rule.adaptive:
            raise InputError(f"{kept}; {type(self.rule).__name__} reuses uploads, errors too: Always is needed")
        if self.broadcast.lossless:
            raise InputError(f"{kept}; the downlink {answer} leaves no error, a lossy one or null here is needed")
        if self.broadcast.settled.follows:
            raise InputError(f"{kept}; the downlink {answer} changes every round, another or null here is needed")
        if self.broadcast.contraction((1,)) is None:
            raise InputError(f"{kept}; the downlink {answer} does not contract, so the error would grow")

    def _refuse_local_steps(self, steps: LocalSteps) -> None:
        if self.rule.second_pass:
            rule = type(self.rule).__name__
            raise InputError(f"rule: {rule}; a second pass would step the workers' optimizers again, Always is needed")
        if not steps.apart:
            return
        for field, given, meant in (
            ("feedback", self.feedback, ErrorFeedback()),
            ("aggregator", self.aggregator, Mean()),
            ("rule", self.rule, Always()),
        ):
            if given != meant:
                needed = f"{type(meant).__name__} is needed"
                raise InputError(f"{field}: {type(given).__name__}; workers apart differ by the error kept, {needed}")

    def _refuse_moments(self, votes: bool) -> None:
        signs = votes or isinstance(self.aggregator, SignOfMean)
        for field, given, why in (
            ("aggregator", self.aggregator, signs and "signs have no size"),
            ("feedback", self.feedback, isinstance(self.feedback, Differences) and "answers are news"),
            ("rule", self.rule, self.rule.adaptive and "old uploads contain old moments"),
            ("local_steps", self.local_steps, self.local_steps is not None and "the outer step has its own momentum"),
        ):
            if why:
                raise InputError(f"{field}: {type(given).__name__}; with moments {why}, another or null is needed")
        if self.units == "update":
            raise InputError("units: 'update'; moments are of gradients, gradient is needed")
        if not (self.compressor.exact and self.broadcast.exact):
            raise InputError("moments: they are learned in rounds that are dense both ways, WarmUp is needed both ways")

    def refuse(self, segments: Segments) -> None:
        """Check that differences of vectors in these segments do not grow (Mishchenko et al. 2019, Theorem 1).

        Raises:
            InputError: the compressor does not contract, and the feedback's rate is above 1 / (1 + ω).
        """
        if not isinstance(self.feedback, Differences) or self.compressor.contraction((1,)):
            return
        variance = self.compressor.variance(segments)
        assert variance is not None  # otherwise the recipe would have been refused
        if self.feedback.rate > (most := 1 / (1 + variance)):
            name = type(self.compressor).__name__
            raise InputError(f"rate: {self.feedback.rate}; with {name} differences grow, at most {most:.3g} is allowed")

    @property
    def settled(self) -> "Algorithm":
        """The recipe once warm-ups are over; without moments, which are learned in them."""
        downlink = self.downlink and self.downlink.settled
        return replace(self, compressor=self.compressor.settled, downlink=downlink, moments=None)

    @property
    def broadcast(self) -> Compressor:
        """The compressor of the server's answer. Votes have a lossless code of their own, shorter than floats."""
        own = self.aggregator.downlink
        if self.downlink is None or (isinstance(self.downlink, Shortest) and not isinstance(own, Identity)):
            return own
        return self.downlink

    @property
    def answers_news(self) -> bool:
        """Whether the server answers with what is new to an estimate that every worker keeps as well."""
        return isinstance(self.feedback, Differences) and self.feedback.rate == 1 and self.broadcast.lossless

    @property
    def entrywise(self) -> bool:
        """Whether a server may answer slices of the vector apart."""
        return self.aggregator.entrywise and self.broadcast.entrywise

    @property
    def adds_up(self) -> bool:
        """Whether messages may be added up on their way to the server."""
        return self.compressor.all_reducible and self.aggregator.sums and not self.rule.adaptive

    @property
    def is_dense(self) -> bool:
        """Whether every worker sends all of its numbers as they are, in every round."""
        return isinstance(self.compressor, Identity) and not self.rule.adaptive

    @property
    def overlaps(self) -> bool:
        """Whether messages can travel while the rest of the gradient is computed, as DDP's buckets do: where each entry
        is rounded by itself, and others are added to it on the way. All others need the whole gradient first."""
        return self.adds_up and isinstance(self.compressor, Identity | Half)

    @property
    def sends_gradients(self) -> bool:
        """Whether messages are plain gradients: nothing is compressed and nothing is kept."""
        plain = isinstance(self.compressor, Identity) and self.units == "gradient" and self.moments is None
        return plain and not self.feedback.num_vectors

    @property
    def moves_zeros(self) -> bool:
        """Whether an entry without a gradient moves nevertheless, because its sign must be plus or minus."""
        votes = isinstance(self.aggregator, MajorityVote) and self.aggregator.ties != "zero"
        return votes or isinstance(self.compressor, Sign)
