"""Buffers such as batch norm's running statistics, and frozen parameters that a step updates, such as a teacher's: one
row per worker, as if each had its own module.

A tensor gets rows when a step first writes it; until then all workers share it, at no cost. Tensors are identified by
module and name, so a step may also assign a new one.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.gradients.attributes import WorkerAttributes
from bench.gradients.marks import Mark, Row, clone, equal, mean, registrations
from bench.kernels.memory import free_bytes


class WorkerBuffers:
    """The step-written tensors of the workers in this process.

    Args:
        module: whose tensors; its own values are every worker's initial ones.
        num_workers: L.

    Attributes:
        names: every name of a tensor -> the one used here.
        rows: by name, each worker's value of a tensor that steps write. For the worker that was loaded last, the module
            may hold a newer value.
    """

    def __init__(self, module: nn.Module, num_workers: int) -> None:
        self.module = module
        self.num_workers = num_workers
        self.homes: dict[str, Row] = {}
        self.common: dict[str, Row] = {}
        self.marks: dict[str, Mark] = {}
        self.rows: dict[str, list[Row]] = {}
        self.left: dict[str, tuple[int, int]] = {}
        self._find()
        self.turn = 0  # the worker whose rows the module holds
        self.seen = False  # whether a step has shown which tensors it writes
        self.thorough = False
        self.attributes = WorkerAttributes(module, num_workers)
        self.set_aside: dict[str, Row] | None = None  # the module's values while averages replace them
        self.averages: dict[str, Row] = {}  # those

    def _find(self) -> None:
        """Find the current tensors; a callback may have registered new ones, as pruning does with its masks."""
        self.places: dict[str, tuple[dict[str, Any], str]] = {}
        for prefix, owner in self.module.named_modules():
            frozen = {key: p for key, p in owner._parameters.items() if p is not None and not p.requires_grad}
            for registry, keys in ((owner._buffers, owner._buffers.keys()), (owner._parameters, frozen)):
                self.places |= {f"{prefix}.{key}" if prefix else key: (registry, key) for key in keys}
        by_place = {(id(registry), key): name for name, (registry, key) in self.places.items()}
        self.names = {  # including those of a module registered twice
            (name := f"{prefix}.{key}" if prefix else key): by_place.get((id(registry), key), name)
            for prefix, owner in self.module.named_modules(remove_duplicate=False)
            for registry in (owner._buffers, owner._parameters)
            for key in registry.keys()  # noqa: SIM118  a scripted module's is no dict
        }
        for name in self.places.keys() - self.homes.keys():
            value = self._get(name)
            self.homes[name], self.common[name], self.marks[name] = value, clone(value), Mark.of(value)
        for name in self.homes.keys() - self.places.keys():
            for known in (self.homes, self.common, self.marks, self.rows):
                known.pop(name, None)
        self.registries = registrations(self.module)

    def _get(self, name: str) -> Row:
        registry, key = self.places[name]
        return registry[key]

    def _put(self, name: str, value: Row) -> None:
        """Write a value to the module, into the original tensor if it fits, as other code may reference that tensor."""
        registry, key = self.places[name]
        home = self.homes[name]
        if home is None or value is None or (home.shape, home.dtype, home.layout) != (
            value.shape, value.dtype, value.layout
        ):  # fmt: skip
            registry[key] = clone(value)
        else:
            registry[key] = home
            if home is not value:
                with torch.no_grad():
                    home.copy_(value)
        self._leave(name, registry[key])

    def is_buffer(self, name: str) -> bool:
        """Whether it is a buffer; otherwise it is a frozen parameter."""
        return not isinstance(self.homes[name], nn.Parameter)

    def begin_round(self, thorough: bool = False) -> bool:
        """Give all workers what other code, such as a callback, wrote since the last round.

        Args:
            thorough: in this round, compare every entry, to find writes that leave a tensor's version unchanged.

        Returns whether tensors were registered, or modules replaced, since the last round.

        Raises:
            InputError: a tensor was written in a way that does not show by which worker.
        """
        self.thorough = thorough
        if changed := registrations(self.module) != self.registries:
            self._find()
        self.attributes.begin_round(self.turn, thorough)
        for name in self.places:
            value = self._get(name)
            if name not in self.rows:
                written = self.marks[name].differs(value, may_wait=True)
                if thorough and not written and self.num_workers > 1 and not equal(value, self.common[name]):
                    self._refuse_unseen(name)
                if written:
                    self.homes[name], self.common[name] = value, clone(value)
                    self.marks[name] = Mark.of(value)
            elif self.num_workers > 1 and self._is_new(name, value):
                self.rows[name] = [clone(value) for _ in range(self.num_workers)]
        return changed

    def _is_new(self, name: str, value: Row) -> bool:
        """Whether the module holds another value than the one left there."""
        if value is None:
            return self.rows[name][self.turn] is not None
        if self.left.get(name) != (id(value), value._version):
            return True
        return value.device.type == "cpu" and not equal(value, self.rows[name][self.turn])  # would wait for others

    def _leave(self, name: str, value: Row) -> None:
        """Record which value the module holds."""
        self.left[name] = (id(value), -1 if value is None else value._version)

    def _catch_up(self) -> None:
        """Bring the rows up to date with the module."""
        self.begin_round(self.thorough)
        if self.num_workers == 1:
            self._save()

    def load(self, worker: int) -> None:
        """Write this worker's values to the module."""
        if worker != self.turn:
            self.turn = worker
            for name, rows in self.rows.items():
                self._put(name, rows[worker])
        self.attributes.load(worker)

    def settle(self) -> None:
        """Find tensors that the loaded worker's step wrote for the first time, and store what it wrote.

        Raises:
            InputError: a frozen parameter was written, and one copy per worker would not fit in memory; or a tensor was
                written in a way that does not show by which worker, or registered, so that the next one has it already.
        """
        if self.thorough or self.turn == 0:
            self.refuse_registered()
        is_first, is_last = self.turn == 0, self.turn == self.num_workers - 1
        for name in self.places.keys() - self.rows.keys():
            value = self._get(name)
            written = self.marks[name].differs(value)
            if self.thorough and not written and (is_first or is_last) and not equal(value, self.common[name]):
                if not is_first:
                    self._refuse_unseen(name)
                written = True
            if written:
                self._refuse_too_many(name)
                self.rows[name] = [clone(self.common[name]) for _ in range(self.num_workers)]
        self.seen = True
        if self.num_workers > 1:
            self._save()
        self.attributes.settle(self.turn)

    def refuse_registered(self) -> None:
        """Raise InputError if a step has registered tensors, which the next worker's would find there."""
        if self.num_workers == 1 or registrations(self.module) == self.registries:
            return
        there = [name for name, _ in (*self.module.named_buffers(), *self.module.named_parameters())]
        if new := sorted(name for name in there if name not in self.names):
            told = f"training_step: registers {', '.join(new)}"
            raise InputError(f"{told}, which the next worker finds; before training is needed, as in __init__")

    def _refuse_unseen(self, name: str) -> None:
        raise InputError(
            f"{name}: written without PyTorch recording it, so that it is unknown by whose step; write it under "
            "torch.no_grad(), not through .data or NumPy"
        )

    def _save(self) -> None:
        """Store the module's values in the rows of the loaded worker."""
        for name, rows in self.rows.items():
            rows[self.turn] = clone(value := self._get(name))
            self._leave(name, value)

    def _refuse_too_many(self, name: str) -> None:
        value = self.common[name]
        if not isinstance(self.homes[name], nn.Parameter) or value is None:
            return
        needed, free = value.numel() * value.element_size() * self.num_workers, free_bytes(value.device)
        if needed > free:
            raise InputError(
                f"{name}: a frozen parameter that training_step moves; {self.num_workers} workers need "
                f"{needed / 1e9:.3g} GB for one each, {free / 1e9:.3g} GB are free"
            )

    def snapshot(self) -> tuple[Any, ...]:
        """The state that `restore` takes: cheap, since rows are replaced and never written in place."""
        if self.num_workers == 1:
            self._save()
        rows = {name: list(values) for name, values in self.rows.items()}
        return rows, self.turn, self.seen, self.attributes.snapshot()

    def restore(self, snapshot: tuple[Any, ...], thorough: bool = False) -> None:
        """Restore the workers' tensors. `thorough`: as for `begin_round`."""
        rows, self.turn, self.seen, attributes = snapshot
        self.rows = {name: list(values) for name, values in rows.items()}
        self.attributes.restore(attributes, self.turn)
        for name in self.places:
            if name in self.rows:
                self._put(name, self.rows[name][self.turn])
            elif self.marks[name].differs(value := self._get(name)) or (
                thorough and not equal(value, self.common[name])
            ):
                self._put(name, self.common[name])
                self.marks[name] = Mark.of(self._get(name))

    @contextlib.contextmanager
    def undone(self, thorough: bool = False) -> Iterator[None]:
        """Undo on exit all changes to the workers' tensors: for trials, and for passes at other parameters."""
        before = self.snapshot()
        try:
            yield
        finally:
            self.restore(before, thorough)

    def stacked(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """(R, …) by name: the buffers that steps write, or all buffers until a step has shown which."""
        if self.num_workers == 1:
            self._save()
        names = [name for name, home in self.homes.items() if self.is_buffer(name) and home is not None]
        rows = range(self.num_workers) if rows is None else rows
        values: dict[str, Any] = {
            name: [self.rows[name][row] for row in rows] if name in self.rows else [self.common[name]] * len(rows)
            for name in names
            if name in self.rows or not self.seen
        }
        return {name: torch.stack(each) for name, each in values.items()}

    def take(self, moved: Mapping[str, Tensor]) -> None:
        """Store what a step of all workers at once made of the buffers from `stacked`."""
        for name, values in moved.items():
            if name in self.rows or not all(torch.equal(row, self.common[name]) for row in values):  # pyright: ignore[reportArgumentType]
                self.rows[name] = [row.detach().clone() for row in values]
                self._put(name, self.rows[name][self.turn])
        self.seen = True

    def written_elsewhere(self) -> list[str]:
        """Names of tensors that a step wrote although all workers shared them."""
        return [name for name in self.places.keys() - self.rows.keys() if self.marks[name].differs(self._get(name))]

    def moved(self) -> list[str]:
        """The names of tensors that steps have written, as far as can be seen."""
        if registrations(self.module) != self.registries:  # as when pruning removes its masks at the end
            self._find()
        late = [n for n in self.places.keys() - self.rows.keys() if not equal(self._own(n), self.common[n])]
        return sorted([*self.rows, *late])

    def _own(self, name: str) -> Row:
        """The module's value, or the one it had before the average that it still shows."""
        return self.set_aside[name] if self.set_aside and self._shows_average(name) else self._get(name)

    def _shows_average(self, name: str) -> bool:
        return name in self.averages and equal(self._get(name), self.averages[name])

    def local(self, names: Sequence[str]) -> dict[str, list[Row]]:
        """The local workers' rows of the tensors with these names."""
        if self.set_aside is None:
            self._catch_up()
        overwritten = {name for name in self.averages if name in self.places and not self._shows_average(name)}
        return {
            name: list(self.rows[name])
            if name in self.rows and name not in overwritten
            else [clone(self._own(name))] * self.num_workers
            for name in names
        }

    def put_mean(self, everyone: Mapping[str, Sequence[Row]], ranks: slice = slice(None)) -> None:
        """Write the mean of these ranks' rows, out of all M, to the module for evaluation; `put_back` undoes it."""
        if self.set_aside is None:
            self._catch_up()
            self.set_aside = {name: clone(self._get(name)) for name in everyone}
        for name, rows in everyone.items():
            self._put(name, mean(rows[ranks]))
            self.averages[name] = clone(self._get(name))

    def put_back(self) -> None:
        """Restore the module's values from before `put_mean`, but those that an evaluation wrote, which stay."""
        if self.set_aside is not None:
            for name, value in self.set_aside.items():
                if name not in self.places or not self._shows_average(name):
                    continue
                self._put(name, value)
                if name not in self.rows:
                    self.marks[name] = Mark.of(self._get(name))
            self.set_aside, self.averages = None, {}

    def load_rows(self, everyone: Mapping[str, Sequence[Row]], ranks: range) -> None:
        """Take the local workers' rows from those of all M workers."""
        device = next(self.module.parameters()).device
        self.rows = {
            name: [None if (row := everyone[name][rank]) is None else row.to(device, copy=True) for rank in ranks]
            for name in everyone
            if name in self.places
        }
        for name, rows in self.rows.items():
            self._put(name, rows[self.turn])
