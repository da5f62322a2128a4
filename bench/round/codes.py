"""What compresses uploads and answers in this round, and what such messages look like."""

from typing import Any

from torch import Tensor

from bench.algorithm import Algorithm
from bench.compressors.base import Segments
from bench.wire.message import Message


class Codes:
    """A recipe's compressors, both ways.

    Args:
        algorithm: the recipe.
        segments: what compressors treat apart.
        like: a vector (d,) of the parameters' dtype and device.

    Attributes:
        uplink, downlink: the compressors of this round, which may depend on the answers so far.
    """

    def __init__(self, algorithm: Algorithm, segments: Segments, like: Tensor) -> None:
        self.segments = segments
        self.like = like
        self.uplink, self.downlink = algorithm.compressor, algorithm.broadcast
        self._blanks: dict[str, Message] = {}

    @property
    def uploads(self) -> Message:
        """One row such as workers send in this round."""
        return self._blank("uplink")

    @property
    def answers(self) -> Message:
        """One row such as servers answer in this round."""
        return self._blank("downlink")

    def _blank(self, name: str) -> Message:
        if name not in self._blanks:
            self._blanks[name] = getattr(self, name).blank(1, self.segments, self.like)
        return self._blanks[name]

    def kept(self, num_rows: int, bounds: tuple[int, int] | None) -> Message:
        """Rows such as workers send, to keep others in: of a slice between two positions, or whole if None."""
        whole = self.uplink.blank(num_rows, self.segments, self.like)
        if bounds is None:
            return whole
        part = whole.cut([0, *bounds, len(self.like)])[1]
        return part.with_tensors({name: t.clone() for name, t in part.tensors.items()})  # and not the memory of all

    def follow(self, answer: Message) -> None:
        """Go on to the next round: its compressors may depend on the answer in this one."""
        alike = self.downlink == self.uplink
        if self.uplink.follows or self.downlink.follows:
            self._blanks.clear()
        self.uplink = self.uplink.after(answer, self.segments)
        self.downlink = self.uplink if alike else self.downlink.after(answer, self.segments)

    def state_dict(self) -> dict[str, Any]:
        return {"uplink": self.uplink.state_dict(), "downlink": self.downlink.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._blanks.clear()
        self.uplink, self.downlink = (
            compressor.restored(kept, self.like.device) if (kept := state.get(name)) else compressor
            for name, compressor in (("uplink", self.uplink), ("downlink", self.downlink))
        )
