"""A cohort's part of a checkpoint: the same in every process and world; tensors, numbers and strings only."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

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
        "server": {**_server(cohort), **cohort.codes.state_dict()},
        "lagged_rate": vars(cohort.lagged_rate),
        "ledger": cohort.ledger.state_dict(),
    }


def restore(cohort: Cohort, state: dict) -> None:
    """Restore a state from `state_of`, whichever world wrote it.

    Raises:
        InputError: it is none, or was written with another recipe, number of workers or adversary.
    """
    if (
        missing := {"num_workers", "algorithm", "adversary", "workers", "server", "lagged_rate", "ledger"}
        - state.keys()
    ):
        raise InputError(f"state: without {', '.join(sorted(missing))}; what state_dict gave is needed")
    if state["num_workers"] != cohort.world.size:
        raise InputError(f"workers: {cohort.world.size}; the checkpoint holds {state['num_workers']}")
    for name in ("algorithm", "adversary"):
        refuse_other(name, getattr(cohort, name), state[name])
    served = _copied(state["server"])
    cohort.workers.load_state_dict(state["workers"])
    cohort.codes.load_state_dict(served)
    cohort.known.load_state_dict(served)
    cohort.server.load_state_dict(_served(cohort, served))
    cohort.lagged_rate = LaggedRate(**state["lagged_rate"])
    cohort.ledger.load_state_dict(state["ledger"])


def _server(cohort: Cohort) -> dict[str, Any]:
    """The state of the server of the whole vector, whose slices may lie in several processes."""
    own = _copied({**cohort.server.state_dict(), **cohort.known.state_dict()})
    codes, slices = cohort.codes, cohort.collective.slices
    if len(slices) == 1:
        return own
    own["upload_lr"] = cohort.world.gather(own["upload_lr"])[0]  # the first slice is never empty
    if own["last"]:
        everyone = cohort.world.gather({name: t.cpu() for name, t in own["last"].items()})
        schemas = codes.uploads.cut([0, *(end for _, end in slices)])
        pieces = [schema.with_tensors(tensors) for schema, tensors in zip(schemas, everyone, strict=True)]
        own["last"] = codes.uploads.joined(pieces).tensors
    if len(own["kept"]):
        own["kept"] = torch.cat(cohort.world.gather(own["kept"].cpu()), dim=1)
    if cohort.server.estimate is not None:
        own["estimate"] = torch.cat(cohort.world.gather(own["estimate"].cpu()))
    return own


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors of a server go on changing in place; those of a state do not."""
    return tree_map_only(Tensor, torch.clone, state)


def _served(cohort: Cohort, state: dict[str, Any]) -> dict[str, Any]:
    """Of the state of the whole server what this process's server serves."""
    if len(cohort.collective.slices) == 1:
        return state
    start, end = cohort.collective.bounds
    last, estimate, kept = state["last"], state["estimate"], state.get("kept", cohort.server.kept)
    if last:
        last = cohort.codes.uploads.with_tensors(last).cut([0, start, end, len(cohort.codes.like)])[1].tensors
    if len(kept):
        kept = kept[:, start:end].clone()
    return {**state, "last": last, "estimate": None if estimate is None else estimate[start:end].clone(), "kept": kept}
