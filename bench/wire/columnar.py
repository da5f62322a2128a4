"""Messages whose tensors have a fixed place for each entry, so that slices of the vector are slices of them."""

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch

from bench.wire.message import Message
from bench.wire.slices import all_intact, cut_segments, join_segments


class Columnar(Message):
    """A message that says what a column of each tensor stands for; tensors not named have one value per row (`intact`).

    Attributes:
        of_entries: (R, d), a column per entry.
        of_bits: (R, ⌈d/8⌉), a byte per eight entries.
        of_segments: (R, S), a column per segment.
        sizes_in: the field with the segments' sizes.
    """

    cuttable = True
    of_entries: ClassVar[tuple[str, ...]] = ()
    of_bits: ClassVar[tuple[str, ...]] = ()
    of_segments: ClassVar[tuple[str, ...]] = ()
    sizes_in: ClassVar[str] = "segments"

    def cut(self, bounds: Sequence[int]) -> list[Message]:
        return [self._slice(start, end) for start, end in pairwise(bounds)]

    def _slice(self, start: int, end: int) -> Self:
        changed: dict[str, Any] = {name: getattr(self, name)[:, start:end] for name in self.of_entries}
        first, last = -(-start // 8), -(-end // 8)
        changed |= {name: getattr(self, name)[:, first:last] for name in self.of_bits}
        names = {field.name for field in fields(self)}  # pyright: ignore[reportArgumentType]
        if self.sizes_in in names:
            changed[self.sizes_in], there = cut_segments(getattr(self, self.sizes_in), start, end)
            changed |= {name: getattr(self, name)[:, there] for name in self.of_segments}
        if "dim" in names:
            changed["dim"] = end - start
        return replace(self, **changed)  # pyright: ignore[reportArgumentType]: every subclass is a dataclass

    def joined(self, pieces: Sequence[Message]) -> Self:
        changed: dict[str, Any] = {}
        for name in self.tensors:
            columns = [piece.tensors[name] for piece in pieces]
            if name in (*self.of_entries, *self.of_bits):
                changed[name] = torch.cat(columns, dim=1)
            elif name in self.of_segments:
                sizes = [sum(getattr(piece, self.sizes_in)) for piece in pieces]
                changed[name] = join_segments(columns, sizes, getattr(self, self.sizes_in))
            else:
                changed[name] = all_intact(columns)
        return replace(self, **changed)  # pyright: ignore[reportArgumentType]: every subclass is a dataclass
