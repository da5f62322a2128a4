"""Who is lost, among the processes of a run: those that do not answer the roll when others have noticed a loss."""

import time

from torch.distributed.distributed_c10d import _get_default_store

ROLL_S = 2.0
"""How long others have to notice the loss, too: their connections to the lost process end, or time out, with ours."""


def absent(rank: int, size: int) -> list[int]:
    """The ranks of the default process group that have not called this within `ROLL_S`.

    Rank 0's process, or torchrun, keeps the roll. If it is gone, rank 0 is absent; of others nothing is known.
    """
    others, ends_at = set(range(size)) - {rank}, time.monotonic() + ROLL_S
    try:
        store = _get_default_store()
        store.set(f"roll/{rank}", "here")
        while others and time.monotonic() < ends_at:
            others = {other for other in others if not store.check([f"roll/{other}"])}
            time.sleep(0.05)
        if rank == 0:
            time.sleep(max(0.0, ends_at - time.monotonic()))  # others read the roll from this process
    except (RuntimeError, ValueError):  # the roll is gone
        return [0] if 0 in others else sorted(others)
    return sorted(others)
