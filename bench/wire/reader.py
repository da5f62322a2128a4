"""Reads a payload field by field and trusts none of its bytes.

A field that is too short, a count above what the schema allows, padding that is not zero or bytes that are left over
raise DamagedError before anything is allocated for them.
"""

import numpy as np
import torch
from torch import Tensor

from bench.errors import DamagedError
from bench.wire.floats import from_bytes


class Reader:
    """A position in a payload (uint8). Every method names its field in errors.

    Raises:
        DamagedError: the payload does not have what is read.
    """

    def __init__(self, payload: np.ndarray) -> None:
        self.payload = payload
        self.at = 0

    @property
    def left(self) -> int:
        """The number of bytes that are not read yet."""
        return len(self.payload) - self.at

    def bytes(self, count: int, field: str) -> np.ndarray:
        """The next bytes."""
        if count > self.left:
            raise DamagedError(f"{field}: {self.left} bytes; {count} are needed")
        start, self.at = self.at, self.at + count
        return self.payload[start : self.at]

    def number(self, most: int, field: str) -> int:
        """The next 32 bits as a number of at most `most`."""
        number = int(self.bytes(4, field).copy().view(">u4")[0])
        if number > most:
            raise DamagedError(f"{field}: {number}; at most {most} is possible")
        return number

    def floats(self, count: int, like: Tensor, field: str) -> Tensor:
        """The next floats, (count,) of `like`'s dtype and device."""
        return from_bytes(self.bytes(count * like.element_size(), field), like)

    def magnitudes(self, count: int, like: Tensor, field: str) -> Tensor:
        """The next floats, which are not negative; NaN stands for a vector that was not finite."""
        found = self.floats(count, like, field)
        if (found < 0).any():
            raise DamagedError(f"{field}: {float(found.min())}; at least 0 is possible")
        return found

    def bits(self, count: int, field: str) -> np.ndarray:
        """The next bits, one a byte; the padding after them, up to a whole byte, must be zero."""
        unpacked = np.unpackbits(self.bytes(-(-count // 8), field))
        if unpacked[count:].any():
            raise DamagedError(f"{field}: padding is not zero")
        return unpacked[:count]

    def packed_signs(self, dim: int, field: str = "signs") -> Tensor:
        """The next ⌈d/8⌉ bytes as `signs.pack` writes them; the bits above d must be zero."""
        packed = self.bytes(-(-dim // 8), field)
        if dim % 8 and packed[-1] >> dim % 8:
            raise DamagedError(f"{field}: padding is not zero")
        return torch.from_numpy(packed.copy())

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise DamagedError(f"end: {self.left} bytes are left over")
