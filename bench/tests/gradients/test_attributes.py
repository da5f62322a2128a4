"""What steps change in attributes: each worker has its own; trials and stale passes change nothing, and start as the
pass that they repeat."""

import queue
import random
from array import array
from collections import ChainMap, Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor, nn

import bench
from bench.laws.toys import Toy, train
from bench.laws.worlds import M, run_processes


class Meter:
    """A user's own object."""

    def __init__(self) -> None:
        self.average, self.inner = 0.0, {"steps": 0}

    def see(self, loss: float) -> None:
        self.average = 0.9 * self.average + 0.1 * loss
        self.inner["steps"] += 1


class Phase(Enum):
    EASY = 0.1
    HARD = 0.2


@dataclass(slots=True)
class Slotted:
    total: float = 0.0


class Stateful(Toy):
    """Its loss depends on all that it keeps in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.meter, self.counts, self.seen = 0, Meter(), [0, 0], Counter()
        self.table, self.window = np.zeros(3), deque([0.0], maxlen=5)
        self.hidden, self.large = torch.zeros(3), torch.zeros(40, 100)
        self.phase, self.slotted, self.few, self.typed = Phase.EASY, Slotted(), frozenset[int](), array("d", [0.0])
        self.order = OrderedDict[str, float](first=0.0, second=0.0)
        self.anchors = {p: p.detach().clone() for p in self.parameters()}
        self.private = [torch.zeros(3, requires_grad=True)]
        self.optimizers_own = [torch.optim.SGD(self.private, lr=0.1, momentum=0.9)]
        self.unregistered = [nn.Linear(2, 2).requires_grad_(False)]
        self.generators = {
            "torch": torch.Generator().manual_seed(1), "numpy": np.random.default_rng(2), "python": random.Random(3)
        }  # fmt: skip

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % 5 == 0:
            self.assigned = (torch.zeros(2), {"sum": 0.0}) if batch_idx == 0 else self.assigned
            self.assigned[0].zero_()
            self.assigned[1].clear()

    def drawn(self) -> float:
        torchs, *others = self.generators.values()
        first = float(torch.rand((), generator=torchs)) if isinstance(torchs, torch.Generator) else torchs.random()
        return first + sum(each.random() for each in others)

    def training_step(self, batch: Any) -> Tensor:
        x, _ = batch
        mean = float(x.mean())
        self.number += 1
        self.meter.see(mean)
        self.counts[self.number % 2] += 1
        self.seen[int(mean > 0)] += 1
        self.table[0] += mean
        self.window.append(mean)
        self.hidden.add_(mean)
        self.large = self.large + mean  # more entries than any limit on outputs
        self.assigned = (self.assigned[0] + mean, {"sum": self.assigned[1].get("sum", 0.0) + mean})
        self.phase = Phase.HARD if mean > 0 else Phase.EASY
        self.slotted.total += mean
        self.few |= {self.number % 3}
        self.typed[0] += mean
        self.order.move_to_end("first" if mean > 0 else "second")
        next(iter(self.anchors.values())).add_(mean)
        self.private[0].grad = torch.full((3,), mean)
        self.optimizers_own[0].step()
        kinds = (
            self.phase.value + self.slotted.total + len(self.few) / 10 + self.typed[0]
            + float(self.private[0].detach().sum())
            + (next(iter(self.order)) == "first") / 10 + float(next(iter(self.anchors.values())).mean())
            + float(self.assigned[0].sum()) + self.assigned[1]["sum"]
        )  # fmt: skip
        with torch.no_grad():
            self.unregistered[0].weight.add_(mean)
        state = (
            self.number / 50 + self.meter.average + self.meter.inner["steps"] / 50 + self.counts[0] / 50
            + self.seen[1] / 50 + self.table[0] + sum(self.window) + float(self.hidden[0]) + float(self.large[0, 0])
            + float(self.unregistered[0].weight[0, 0]) + self.drawn()
        )  # fmt: skip
        return super().training_step(batch) * (1 + (state + kinds) / 20)


def held(module: Stateful) -> list[Any]:
    return [
        module.number, module.meter.average, module.meter.inner["steps"], module.counts, dict(module.seen),
        module.table.tolist(), list(module.window), module.hidden.tolist(), float(module.large.sum()),
        module.unregistered[0].weight.tolist(), module.drawn(), module.phase, module.slotted.total, module.few,
        module.typed.tolist(), list(module.order), float(module.private[0].detach().sum()), module.assigned[0].tolist(),
    ]  # fmt: skip


def test_both_worlds(tmp_path: Path) -> None:
    """As if each worker had its own module, also under a rule that takes second passes."""
    simulated = train("lasg", Stateful, workers=M)
    real = run_processes(tmp_path, bench.load_recipe("lasg"), Stateful)
    assert simulated.ledger["num_backwards"] > 30 * M
    assert simulated.module.number == simulated.module.meter.inner["steps"] == sum(simulated.module.counts) == 30
    for process in real:
        assert torch.equal(process["weights"], simulated.weights)


@pytest.mark.parametrize("engine", ["loop", "auto"])
def test_other_passes_leave_all_of_it(engine: Any) -> None:
    """One worker under a lazy rule keeps what plain steps on the same batches leave."""
    run, plain = (
        train("lasg", Stateful, workers=1, rounds=12, engine=engine),
        train("sgd", Stateful, workers=1, rounds=12),
    )
    assert held(run.module) == held(plain.module)


class Box:
    """A user's own object, called as a hook."""

    def __init__(self) -> None:
        self.value = 1.0

    def __call__(self, *_: Any) -> None:
        pass


class Texts(dict[str, float]):
    """A container with attributes of its own."""


def assigned_inside() -> tuple[Callable[[], float], Callable[[float], None]]:
    value = 1.0

    def get() -> float:
        return value

    def put(new: float) -> None:
        nonlocal value
        value = new

    return get, put


def held_by_a_hook(module: nn.Module) -> tuple[Callable[[], float], Callable[[float], None]]:
    box = Box()
    module.register_forward_hook(box)
    return lambda: box.value, lambda new: setattr(box, "value", new)


def default_of(kept: list[float]) -> tuple[Callable[[], float], Callable[[float], None]]:
    def read(held: list[float] = kept) -> float:
        return held[0]

    return read, partial(kept.__setitem__, 0)


def on_a_tensor(parameter: Tensor) -> tuple[Callable[[], float], Callable[[float], None]]:
    box = Box()
    parameter.register_hook(box)
    return lambda: box.value, lambda new: setattr(box, "value", new)


def within(container: Any) -> tuple[Callable[[], float], Callable[[float], None]]:
    return lambda: float(container[0]), lambda new: container.__setitem__(0, new)


def of(target: Any) -> tuple[Callable[[], float], Callable[[float], None]]:
    target.value = 1.0
    return lambda: target.value, lambda new: setattr(target, "value", new)


def waiting(line: queue.Queue[float]) -> tuple[Callable[[], float], Callable[[float], None]]:
    line.put(1.0)

    def put(new: float) -> None:
        line.get()
        line.put(new)

    return lambda: line.queue[0], put


PLACES: dict[str, Callable[[nn.Module], tuple[Callable[[], float], Callable[[float], None]]]] = {
    "attribute": of,
    "list": lambda module: within([1.0]),
    "array": lambda module: within(array("d", [1.0])),
    "a view of memory": lambda module: within(memoryview(array("d", [1.0]))),
    "array of objects": lambda module: within(np.array([1.0, None], dtype=object)),
    "chained dicts": lambda module: within(ChainMap({0: 1.0}, {})),
    "array of arrays": lambda module: within(np.array([[array("d", [1.0])], [None]], dtype=object)[0, 0]),
    "bytes": lambda module: within(memoryview(bytearray(np.ones(1).tobytes())).cast("d")),
    "default argument": lambda module: default_of([1.0]),
    "a tensor's hook": lambda module: on_a_tensor(next(module.parameters())),
    "arguments": lambda module: (lambda call: (lambda: call.args[0][0], lambda new: call.args[0].__setitem__(0, new)))(
        partial(print, [1.0])
    ),
    "a function's attribute": lambda module: of(lambda: None),
    "a container's attribute": lambda module: of(Texts()),
    "a parameter's attribute": lambda module: of(next(module.parameters())),
    "closure": lambda module: assigned_inside(),
    "hook": held_by_a_hook,
    "queue": lambda module: waiting(queue.Queue()),
}


class Averaging(Toy):
    """Its loss depends on a number that its steps average, wherever that lies."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = PLACES[place](self)

    def training_step(self, batch: Any) -> Tensor:
        get, put = self.place
        put(0.9 * get() + float(batch[0].mean()))
        return super().training_step(batch) * get()


@pytest.mark.parametrize("recipe", ["sgd", "lasg"])
def test_each_worker_has_its_own_wherever_it_lies(recipe: str) -> None:
    ended = {place: train(recipe, partial(Averaging, place), rounds=14).weights for place in PLACES}
    assert [place for place, weights in ended.items() if not torch.equal(weights, ended["attribute"])] == []


def test_the_first_attribute_of_a_parameter_is_each_workers() -> None:
    """Also if a step is what gives it."""

    class Marking(Toy):
        def __init__(self, early: bool) -> None:
            super().__init__()
            if early:
                vars(self.network[0].weight)["mean_seen"] = 1.0

        def training_step(self, batch: Any) -> Tensor:
            weight: Any = self.network[0].weight
            weight.mean_seen = 0.9 * getattr(weight, "mean_seen", 1.0) + float(batch[0].mean())
            return super().training_step(batch) * weight.mean_seen

    early, late = (train("sgd", partial(Marking, early), rounds=14) for early in (True, False))
    assert torch.equal(early.weights, late.weights)


def test_what_is_made_anew_for_each_round_is_forgotten() -> None:
    """As a hook with a container of its own, which a callback registers and removes."""

    class Capturing(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen: dict[str, Tensor] = {}
            self.hook = pl_module.network.register_forward_hook(lambda *args: seen.update(last=args[2].detach()))

        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            self.hook.remove()

    run = train("sgd", rounds=14, callbacks=[Capturing()], engine="loop")
    assert len(run.strategy.fitting.buffers.attributes.rows) <= 1


def test_a_leaf_keeps_its_flag() -> None:
    """A perturbation that each step improves, as adversarial training does."""

    class Perturbing(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.delta = torch.zeros(20, requires_grad=True)

        def training_step(self, batch: Any) -> Tensor:
            loss = super().training_step((batch[0] + self.delta, batch[1]))
            (slope,) = torch.autograd.grad(loss, self.delta, retain_graph=True)
            self.delta = (self.delta + 0.1 * slope.sign()).detach().requires_grad_()
            return loss

    run = train("sgd", Perturbing, rounds=5, engine="loop")
    assert run.ledger["rounds"] == 5


@pytest.mark.parametrize("recipe", ["sgd", "lasg"])
def test_what_was_kept_with_its_graph_is_each_workers(recipe: str) -> None:
    class Keeping(Toy):
        def __init__(self, with_graph: bool) -> None:
            super().__init__()
            self.with_graph, self.last = with_graph, torch.ones(())

        def training_step(self, batch: Any) -> Tensor:
            loss, before = super().training_step(batch), self.last.detach()
            self.last = loss if self.with_graph else loss.detach()
            return loss * before

    with_graph, without = (train(recipe, partial(Keeping, graph), rounds=14) for graph in (True, False))
    assert torch.equal(with_graph.weights, without.weights)
    assert with_graph.module.last.requires_grad


def test_what_nobody_can_rewind_is_told_and_not_used_up() -> None:
    """A trial would leave a queue empty, and the next step waiting."""

    class Queueing(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.line: queue.SimpleQueue[float] = queue.SimpleQueue()
            self.line.put(1.0)

        def training_step(self, batch: Any) -> Tensor:
            value = self.line.get(timeout=5)
            self.line.put(0.9 * value + float(batch[0].mean()))
            return super().training_step(batch)

    with pytest.warns(UserWarning, match="line: an iterator or queue, which no worker can rewind"):
        train("sgd", Queueing, rounds=3)


class Noisy(Stateful):
    """It draws from a generator of one kind in each step; nothing else of its state matters."""

    def __init__(self, kind: str, lr: float = 0.05) -> None:
        super().__init__()
        self.lr = lr
        self.generators = {name: each for name, each in self.generators.items() if name == kind}

    def training_step(self, batch: Any) -> Tensor:
        drawn = self.drawn()
        seen.append(drawn)
        return Toy.training_step(self, batch) * (1 + drawn)


seen: list[float] = []  # not in the module, where workers would each have their own


@pytest.mark.parametrize("kind", ["torch", "numpy", "python"])
def test_a_second_pass_draws_what_the_first_drew(kind: str) -> None:
    """Where nothing moves, gradients at old and new parameters are equal, so workers have nothing to send."""
    run = train("lasg", lambda: Noisy(kind, lr=1e-12), rounds=14)
    assert run.ledger["uploads"] == 10 * 4  # the first ten rounds, in which all send


@pytest.mark.parametrize("engine", ["joint", "vmap"])
@pytest.mark.parametrize("kind", ["numpy", "python"])
def test_a_second_pass_of_all_workers_draws_what_the_first_drew(kind: str, engine: Any) -> None:
    seen.clear()
    train("lasg", lambda: Noisy(kind), rounds=14, engine=engine)
    first, pairs = seen[:10], seen[10:]  # once a round for all workers; from the eleventh on also at old parameters
    assert pairs[::2] == pairs[1::2]
    assert len({*first, *pairs}) == 14


def test_each_worker_has_what_its_step_created() -> None:
    class Creating(Toy):
        def training_step(self, batch: Any) -> Tensor:
            self.made = getattr(self, "made", 0) + 1
            self.best = min(getattr(self, "best", 9.0), float(batch[0].mean()))
            return super().training_step(batch)

    run = train("lasg", Creating, rounds=14)
    assert run.module.made == 14
    rows = {name: rows for (_, name), rows in run.strategy.fitting.buffers.attributes.rows.items()}
    assert rows["made"] == [14] * 4
    assert len(set(rows["best"])) == 4


class Crowded(Toy):
    """Of many parts, as networks in use are; its counter and its shadow weights move from the third round on."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Identity() for _ in range(300))
        self.shadow = {f"weight {i}": torch.ones(2) for i in range(100)}
        self.steps = self.number = 0

    def training_step(self, batch: Any) -> Tensor:
        self.steps += 1
        if self.steps > 2:
            self.number += 1
            for value in self.shadow.values():
                value.mul_(0.5)
        return super().training_step(batch)


def test_many_parts_and_entries_are_watched_too() -> None:
    run = train("sgd", Crowded, rounds=6, engine="loop")
    assert run.module.number == 4
    assert all(value.tolist() == [0.5**4] * 2 for value in run.module.shadow.values())


def test_what_cannot_be_kept_apart_is_told() -> None:
    class Iterating(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.weights, self.queue = iter(range(1000)), []

        def training_step(self, batch: Any) -> Tensor:
            self.queue.append(next(self.weights))
            if len(self.queue) > 9:
                self.queue.pop(0)
            return super().training_step(batch)

    with pytest.warns(UserWarning, match="is needed for each worker to have its own") as told:
        train("sgd", Iterating, rounds=4, engine="loop")
    said = [str(each.message) for each in told]
    for name in ("weights: an iterator", "queue: all workers' steps add to it and take from it"):
        assert sum(message.startswith(name) for message in said) == 1, said
