"""A cohort's part of a checkpoint: the same in every process and world; tensors, numbers and strings only."""

from bench.errors import InputError
from bench.round.cohort import Cohort
from bench.round.rates import LaggedRate
from bench.round.written import refuse_other


def state_of(cohort: Cohort) -> dict[str, object]:
    """The state of all M workers and their server. All processes must call it."""
    world, workers = cohort.world, cohort.workers.state_dict()
    rows = world.gather_rows(workers["rows"])
    snapshots = {t: v for process in world.gather(workers["snapshots"]) for t, v in process.items()}
    return {
        "algorithm": repr(cohort.algorithm),
        "adversary": repr(cohort.adversary),
        "num_workers": world.size,
        "workers": {**workers, "rows": rows, "snapshots": snapshots},
        "server": cohort.server.state_dict(),
        "lagged_rate": vars(cohort.lagged_rate),
        "ledger": cohort.ledger.state_dict(),
    }


def restore(cohort: Cohort, state: dict) -> None:
    """Restore a state from `state_of`, whichever world wrote it.

    Raises:
        InputError: it was written with another recipe, number of workers or adversary.
    """
    if state["num_workers"] != cohort.world.size:
        raise InputError(f"workers: {cohort.world.size}; the checkpoint holds {state['num_workers']}")
    for name in ("algorithm", "adversary"):
        refuse_other(name, getattr(cohort, name), state[name])
    cohort.workers.load_state_dict(state["workers"])
    cohort.server.load_state_dict(state["server"])
    cohort.lagged_rate = LaggedRate(**state["lagged_rate"])
    cohort.ledger.load_state_dict(state["ledger"])
