"""The compressors of uploads and answers in the current round, and the schemas of their messages."""

from typing import Any

from torch import Tensor

from bench.algorithm import Algorithm
from bench.compressors.base import Segments
from bench.wire.message import Message


class Codes:
    """A recipe's compressors of the uplink and the downlink.

    Args:
        algorithm: the recipe.
        segments: the parts that compressors treat separately.
        like: a vector (d,) of the parameters' dtype and device.

    Attributes:
        uplink, downlink: the compressors of the current round, which may depend on earlier answers.
    """

    def __init__(self, algorithm: Algorithm, segments: Segments, like: Tensor) -> None:
        self.segments = segments
        self.like = like
        self.uplink, self.downlink = algorithm.compressor, algorithm.broadcast
        self._blanks: dict[str, Message] = {}

    @property
    def uploads(self) -> Message:
        """A message of one row, the schema of uploads in this round; its content is arbitrary."""
        return self._blank("uplink")

    @property
    def answers(self) -> Message:
        """A message of one row, the schema of answers in this round; its content is arbitrary."""
        return self._blank("downlink")

    def _blank(self, name: str) -> Message:
        if name not in self._blanks:
            self._blanks[name] = getattr(self, name).blank(1, self.segments, self.like)
        return self._blanks[name]

    def kept(self, num_rows: int, bounds: tuple[int, int] | None) -> Message:
        """Messages of arbitrary content in which the server stores uploads.

        Args:
            num_rows: one per worker.
            bounds: where the slice of entries begins and ends; all entries if None.
        """
        whole = self.uplink.blank(num_rows, self.segments, self.like)
        if bounds is None:
            return whole
        part = whole.cut([0, *bounds, len(self.like)])[1]
        # Views would keep the memory of the whole messages in use.
        return part.with_tensors({name: t.clone() for name, t in part.tensors.items()})

    def follow(self, answer: Message) -> None:
        """Switch to the next round's compressors, which may depend on this round's answer."""
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
