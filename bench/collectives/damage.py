"""What arrives is checked before it is believed: sizes before memory is taken for them, bytes before they are used."""

from collections.abc import Mapping

import numpy as np

from bench.errors import DamagedError
from bench.wire.message import Message

MOST_BYTES, MOST_AROUND = 16, 4096  # an entry, and besides entries: more than any code takes


def refuse_sizes(sizes: np.ndarray, num_entries: int, what: str, header: int = 0) -> None:
    """Check the sizes that workers have announced.

    Args:
        sizes: (M,) bytes.
        num_entries: of the vectors that are sent.
        what: begins the error.
        header: the bytes that come before each.

    Raises:
        DamagedError: one is below the header, or above what so many entries can take. In every process alike.
    """
    most = header + MOST_BYTES * num_entries + MOST_AROUND
    for rank in np.flatnonzero((sizes < header) | (sizes > most)).tolist():
        raise DamagedError(f"{what} worker {rank}: size: {sizes[rank]} bytes; {header} to {most} are possible")


def decoded(schema: Message, payloads: Mapping[int, np.ndarray], what: str) -> Message | None:
    """Decode the payloads, by the rank that sent them, to one message; None if there are none.

    Raises:
        DamagedError: one is not a message of this schema; names the rank and the field.
    """
    if not payloads:
        return None
    try:
        return schema.decode(list(payloads.values()))
    except DamagedError as error:
        raise DamagedError(f"{what} worker {_culprit(schema, payloads)}: {error}") from None


def _culprit(schema: Message, payloads: Mapping[int, np.ndarray]) -> int:
    """The first rank whose payload cannot be decoded."""
    for rank, payload in payloads.items():
        try:
            schema.decode([payload])
        except DamagedError:
            return rank
    raise AssertionError("every payload is sound on its own")
