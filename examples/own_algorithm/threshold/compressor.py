"""Threshold-v: sends every entry whose magnitude reaches v, however many there are.

Strom: Scalable Distributed DNN Training Using Commodity GPU Cloud Computing, Interspeech 2015.
Sahu, Dutta, Abdelmoniem, Banerjee, Canini, Kalnis: Rethinking Gradient Sparsification as Total Error Minimization,
NeurIPS 2021.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compressors import Compressor
from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.wire.message import Message
from bench.wire.sparse import SparsePiece, chosen_entries


@dataclass(frozen=True)
class Threshold(Compressor):
    """C(x) keeps the entries with |x_i| ≥ v.

    Args:
        threshold: v, above 0.
    """

    threshold: float
    may_exceed_dense = True  # where most entries reach v, their positions come on top

    def __post_init__(self) -> None:
        if not 0 < self.threshold < math.inf:
            raise InputError(f"threshold: {self.threshold}; a finite number above 0 is needed")

    def compress(self, x: Tensor, segments: Sequence[int], noise: Sequence[Noise]) -> SparsePiece:
        return chosen_entries(x, x.abs() >= self.threshold)

    def num_bits_paper(self, message: Message) -> Tensor:
        """32 bits an entry: Strom packs its position and its sign in one word."""
        return 32 * message.tensors["counts"]

    def contraction(self, segments: Sequence[int]) -> None:
        return None  # of a vector whose entries are all below v, nothing is sent

    def error_bound(self, segments: Sequence[int]) -> float:
        """√d · v: each entry that is left out is below v."""
        return math.sqrt(sum(segments)) * self.threshold


@dataclass(frozen=True)
class LayerwiseThreshold(Compressor):
    """`Threshold` with another v for layers whose names contain a word, such as the last one's.

    Args:
        threshold: v of all other tensors.
        word: in the names of these.
        other: their v.
    """

    threshold: float
    word: str
    other: float
    may_exceed_dense = True

    def compress(self, x: Tensor, segments: Sequence[int], noise: Sequence[Noise]) -> SparsePiece:
        from bench.gradients.layout import name_of

        each = [self.other if self.word in name_of(size) else self.threshold for size in segments]
        return chosen_entries(x, x.abs() >= torch.repeat_interleave(x.new_tensor(each), torch.tensor(segments)))

    def num_bits_paper(self, message: Message) -> Tensor:
        return 32 * message.tensors["counts"]

    def contraction(self, segments: Sequence[int]) -> None:
        return None

    def error_bound(self, segments: Sequence[int]) -> float:
        return math.sqrt(sum(segments)) * max(self.threshold, self.other)
