"""A plain PyTorch loop and a DDP hook give the bits that Lightning gives."""

import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel.distributed import _MixedPrecision

import bench
from bench.algorithm import Algorithm
from bench.errors import InputError, NonFiniteError
from bench.laws.toys import Normed, Toy, counted, flat, loader, toy_data, train
from bench.laws.worlds import forked_once
from bench.tests.found import RECIPES, STEPPING

M = 3
ROUNDS = 13

Dropping = partial(Toy, dropout=0.2)
LOOPS: dict[str, tuple[Algorithm, Callable[[], Toy]]] = {
    **{name: (recipe, Toy) for name, recipe in STEPPING.items()},
    "dropout": (RECIPES["sasg"], Dropping),
    "batch norm": (RECIPES["sasg"], Normed),
}
HOOKS = {name: recipe for name, recipe in STEPPING.items() if not recipe.rule.second_pass}


def begun(module: Callable[[], Toy]) -> tuple[Toy, torch.optim.Optimizer]:
    """A module as `train` makes it."""
    lightning.seed_everything(3, verbose=False)
    toy = module()
    return toy, toy.configure_optimizers()


def loss_of(module: Toy, batch: Any) -> torch.Tensor:
    x, y = batch
    return F.cross_entropy(module.network(x), y)


def plain(rank: int, recipe: Algorithm, module: Callable[[], Toy], kill_at: int | None = None) -> dict[str, Any]:
    """The plain loop; if it is killed, all but a state dict is thrown away and it goes on in a new loop."""
    toy, optimizer = begun(module)
    sync = bench.CompressedAllReduce(toy, recipe)
    for t, batch in enumerate(loader(toy_data(), M, [rank])):
        if t == ROUNDS:
            break
        if t == kill_at:
            saved = sync.state_dict(), toy.state_dict()
            toy, optimizer = begun(module)
            sync = bench.CompressedAllReduce(toy, recipe)
            toy.load_state_dict(saved[1])
            sync.load_state_dict(saved[0])
        optimizer.zero_grad()
        with sync.same_noise():
            loss = loss_of(toy, batch)
        loss.backward()
        sync(optimizer, partial(loss_of, toy, batch))
        optimizer.step()
    return {"weights": flat(toy), "ledger": counted(sync.ledger.state_dict()), "buffers": dict(toy.named_buffers())}


def hooked(rank: int, recipe: Algorithm) -> dict[str, Any]:
    toy, optimizer = begun(Toy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = DistributedDataParallel(toy.network, bucket_cap_mb=0.001)  # several buckets, which DDP deals anew
    hook = bench.CompressionHook(model, recipe, optimizer)
    for _, (x, y) in zip(range(ROUNDS), loader(toy_data(), M, [rank]), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return {"weights": flat(toy), "ledger": counted(hook.ledger.state_dict())}


def accumulated(rank: int, together: bool) -> dict[str, Any]:
    """Two batches of half the size and half the loss, or one."""
    toy, optimizer = begun(Toy)
    sync = bench.CompressedAllReduce(toy, "lasg")
    for t, (x, y) in enumerate(loader(toy_data(), M, [rank])):
        if t == ROUNDS:
            break
        optimizer.zero_grad()
        parts = [(x, y)] if together else [(x[:2], y[:2]), (x[2:], y[2:])]
        for number, part in enumerate(parts, start=1):
            closure = partial(lambda part: loss_of(toy, part) / len(parts), part)  # noqa: B023  used at once
            closure().backward()
            if number < len(parts):
                with sync.no_sync():
                    with sync.no_sync():
                        pass
                    assert sync(optimizer, closure) is None
            else:
                report = sync(optimizer, closure)
                assert report is not None
                assert np.isnan(report.loss).all(), "nobody told it"
        optimizer.step()
    return {"weights": flat(toy), "ledger": counted(sync.ledger.state_dict())}


class Heads(nn.Module):
    """A body with two heads, of which one takes part."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(20, 16)
        self.heads = nn.ModuleList([nn.Linear(16, 3), nn.Linear(16, 3)])

    def forward(self, x: torch.Tensor, head: int) -> torch.Tensor:
        return self.heads[head](self.body(x).relu())


def in_turns(rank: int, by_hook: bool) -> dict[str, Any]:
    """Rounds in which one head has no gradient, but errors to send."""
    heads = Heads()
    model = DistributedDataParallel(heads, find_unused_parameters=True) if by_hook else heads
    optimizer = torch.optim.SGD(heads.parameters(), 0.1)
    if isinstance(model, DistributedDataParallel):
        sync: Any = bench.CompressionHook(model, "sparse", optimizer, density=0.1)
    else:
        sync = bench.CompressedAllReduce(heads, "sparse", density=0.1)
    for t, (x, y) in enumerate(loader(toy_data(), M, [rank])):
        optimizer.zero_grad(set_to_none=t % 3 > 0)
        F.cross_entropy(model(x, t % 2), y).backward()
        if not by_hook:
            sync(optimizer)
        optimizer.step()
    return {"weights": flat(heads), "ledger": counted(sync.ledger.state_dict())}


class Permuted(nn.Module):
    """Parameters whose entries do not lie row by row in memory."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Parameter(torch.randn(20, 16).t() / 5)
        self.conv = nn.Conv2d(4, 3, 2).to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.linear(x, self.first).view(-1, 4, 2, 2))[:, :, 0, 0]


def in_own_order(rank: int, by_hook: bool, recipe: str) -> dict[str, Any]:
    permuted = Permuted()
    model = DistributedDataParallel(permuted) if by_hook else permuted
    optimizer = torch.optim.SGD(permuted.parameters(), 0.1)
    if isinstance(model, DistributedDataParallel):
        sync: Any = bench.CompressionHook(model, recipe, optimizer)
    else:
        sync = bench.CompressedAllReduce(permuted, recipe)
    for _, (x, y) in zip(range(6), loader(toy_data(), M, [rank]), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if not by_hook:
            sync(optimizer)
        optimizer.step()
    return {"weights": flat(permuted), "ledger": counted(sync.ledger.state_dict())}


def adversaries(rank: int) -> dict[str, Any]:
    """A GAN: two networks, two optimizers, two recipes side by side."""
    torch.manual_seed(0)
    maker, judge = nn.Linear(4, 20), nn.Linear(20, 1)
    optimizers = [torch.optim.SGD(maker.parameters(), 0.1), torch.optim.Adam(judge.parameters(), 0.01)]
    syncs = [bench.CompressedAllReduce(maker, "sparse", density=0.1), bench.CompressedAllReduce(judge, "signsgd_mv")]
    for _, (x, _) in zip(range(5), loader(toy_data(), M, [rank]), strict=False):
        made = maker(x[:, :4])
        truth, forged = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        optimizers[1].zero_grad()
        score = F.binary_cross_entropy_with_logits
        (score(judge(x), truth) + score(judge(made.detach()), forged)).backward()
        syncs[1](optimizers[1])
        optimizers[1].step()
        optimizers[0].zero_grad()
        score(judge(made), truth).backward()
        syncs[0](optimizers[0])
        optimizers[0].step()
    return {"weights": torch.cat([flat(maker), flat(judge)]), "rounds": [sync.ledger.rounds for sync in syncs]}


def refusals(rank: int) -> dict[str, str]:
    """What is said when something cannot be done, by case."""
    told = {}

    def note(case: str, work: Callable[[], Any]) -> None:
        try:
            work()
        except (InputError, NonFiniteError) as error:
            told[case] = str(error)

    toy, optimizer = begun(Dropping)
    wrapped = DistributedDataParallel(toy.network)
    assert bench.CompressedAllReduce(toy, "sgd").world.timeout == timedelta(seconds=77)
    note("second pass", lambda: bench.CompressionHook(wrapped, "sasg", optimizer))
    note("rate", lambda: bench.CompressionHook(wrapped, "sparse"))
    note("no moments", lambda: bench.CompressionHook(wrapped, "onebit_adam"))
    adam = torch.optim.Adam(toy.parameters())
    note("moments", lambda: bench.CompressionHook(wrapped, "onebit_adam", adam))
    note("moments in a loop", lambda: bench.CompressedAllReduce(toy, "onebit_adam")(adam))
    note("option", lambda: bench.CompressedAllReduce(toy, "sparse", densty=0.1))
    note("differing", lambda: bench.CompressedAllReduce(toy, "sparse", density=0.1 * (1 + rank)))
    batch = next(iter(loader(toy_data(), M, [rank])))
    sync = bench.CompressedAllReduce(toy, "sasg")

    def step(*closure: Callable[[], torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss_of(toy, batch).backward()
        sync(optimizer, *closure)
        optimizer.step()

    note("closure", step)
    note("noise", lambda: [step(partial(loss_of, toy, batch)) for _ in range(ROUNDS)])
    sync = bench.CompressedAllReduce(toy, "signsgd_mv")
    for p in toy.parameters():
        p.grad = torch.full_like(p, torch.nan if rank == 1 else 1.0)
    note("not finite", lambda: sync(optimizer))
    note("complex", lambda: bench.CompressedAllReduce(nn.Linear(2, 2, dtype=torch.complex64), "sgd"))
    for case, change in CHANGES.items():
        net = begun(Toy)[0].network
        net[0].bias.requires_grad_(False)
        sync = bench.CompressedAllReduce(net, "sparse")
        change(net)
        note(f"{case} in a loop", partial(sync, torch.optim.SGD(net.parameters(), 0.1)))
    net = begun(Toy)[0].network
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, ["0.weight"])
    note("ignored", lambda: bench.CompressionHook(DistributedDataParallel(net), "sgd"))
    mine = [dist.new_group([other]) for other in range(M)][rank]
    net = begun(Toy)[0].network
    note("group", lambda: bench.CompressionHook(DistributedDataParallel(net, process_group=mine), "sgd"))
    model = DistributedDataParallel(net)
    model.mixed_precision = _MixedPrecision()  # which DDP itself takes only beside an accelerator
    note("mixed", lambda: bench.CompressionHook(model, "sgd"))
    model.mixed_precision = None
    bench.CompressionHook(model, "sgd")

    def joined() -> None:
        with model.join():
            F.cross_entropy(model(batch[0]), batch[1]).backward()

    note("join", joined)
    return told


CHANGES: dict[str, Callable[[nn.Sequential], Any]] = {
    "thawed": lambda net: net[0].bias.requires_grad_(True),
    "frozen": lambda net: net[2].bias.requires_grad_(False),
    "replaced": lambda net: net.load_state_dict(net.state_dict(), assign=True),
    "added": lambda net: net.append(nn.Linear(3, 3)),
}


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=M, timeout=timedelta(seconds=77))
    torch.save(
        {
            **{name: plain(rank, *case) for name, case in LOOPS.items()},
            **{f"hooked {name}": hooked(rank, recipe) for name, recipe in HOOKS.items()},
            "killed": plain(rank, RECIPES["sasg"], Dropping, kill_at=6),
            "in parts": accumulated(rank, together=False),
            "at once": accumulated(rank, together=True),
            "in turns": in_turns(rank, by_hook=False),
            "hooked in turns": in_turns(rank, by_hook=True),
            **{f"{by}permuted {r}": in_own_order(rank, bool(by), r) for by in ("", "hooked ") for r in ("sgd", "stc")},
            "adversaries": adversaries(rank),
            "refusals": refusals(rank),
        },
        folder / f"{rank}.pt",
    )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every process ended with, by rank and case."""
    folder = forked_once(tmp_path_factory, "loops", M, work)
    return [torch.load(folder / f"{rank}.pt") for rank in range(M)]


@cache
def lightnings(name: str) -> dict[str, Any]:
    recipe, module = LOOPS[name]
    trained = train(recipe, module, workers=M, rounds=ROUNDS, engine="loop")
    return {"weights": trained.weights, "ledger": trained.ledger}


@pytest.mark.parametrize("name", LOOPS)
def test_a_plain_loop_gives_lightnings_bits(name: str, ended: list[dict[str, Any]]) -> None:
    expected = lightnings(name)
    for process in ended:
        assert torch.equal(process[name]["weights"], expected["weights"])
        assert process[name]["ledger"] == expected["ledger"]


@pytest.mark.parametrize("name", [*HOOKS, "in turns", "permuted sgd", "permuted stc"])
def test_a_hook_sends_what_a_plain_loop_sends(name: str, ended: list[dict[str, Any]]) -> None:
    for process in ended:
        assert torch.equal(process[f"hooked {name}"]["weights"], process[name]["weights"])
        assert process[f"hooked {name}"]["ledger"] == process[name]["ledger"]


def test_a_loop_goes_on_from_its_state(ended: list[dict[str, Any]]) -> None:
    for process in ended:
        assert torch.equal(process["killed"]["weights"], process["dropout"]["weights"])
        assert process["killed"]["ledger"] == process["dropout"]["ledger"]


def test_a_second_pass_leaves_statistics_alone(ended: list[dict[str, Any]]) -> None:
    counts = [int(process["batch norm"]["buffers"]["network.1.num_batches_tracked"]) for process in ended]
    assert counts == [ROUNDS] * M


def test_accumulated_batches_are_one_round(ended: list[dict[str, Any]]) -> None:
    for process in ended:
        parts, whole = process["in parts"], process["at once"]
        torch.testing.assert_close(parts["weights"], whole["weights"])
        assert parts["ledger"]["rounds"] == ROUNDS
        assert parts["ledger"]["uplink_bits"] == whole["ledger"]["uplink_bits"]


def test_two_recipes_live_side_by_side(ended: list[dict[str, Any]]) -> None:
    first, *others = [process["adversaries"] for process in ended]
    assert first["rounds"] == [5, 5]
    assert first["weights"].isfinite().all()
    for other in others:
        assert torch.equal(first["weights"], other["weights"])


@pytest.mark.parametrize(
    ("case", "said"),
    {
        "second pass": "takes a second backward pass, which a hook of DDP cannot",
        "rate": "optimizer: None; messages contain the learning rate",
        "no moments": "optimizer: None; onebit_adam needs one without moments",
        "moments": "optimizer: Adam; onebit_adam steps by Adam's moments of its own, SGD without momentum is needed",
        "moments in a loop": "optimizer: Adam; onebit_adam steps by Adam's moments of its own, SGD without momentum is",
        "option": "densty: 0.1; neither sparse nor its parts have it",
        "differing": "algorithm: rank 1 has",
        "closure": "closure: None; LASGWK2 takes a second gradient",
        "noise": "closure: it draws random numbers",
        "not finite": "worker 1: loss nan",
        "complex": "parameters: weight is of torch.complex64; real numbers are needed",
        "thawed in a loop": "requires_grad: 0.bias became True during training",
        "frozen in a loop": "requires_grad: 2.bias became False during training",
        "replaced in a loop": "parameters: 0.weight was replaced during training",
        "added in a loop": "parameters: 3.weight was added during training",
        "ignored": "parameters: 0.weight is ignored by DDP; it must be frozen",
        "group": "DDP's default is needed, of [0, 1, 2]",
        "mixed": "DDP's must be None, torch.autocast can be used",
        "join": "join: a round needs every process",
    }.items(),
)
def test_one_clear_line(case: str, said: str, ended: list[dict[str, Any]]) -> None:
    for process in ended:
        assert said in process["refusals"][case]


def test_without_a_process_group_it_says_so() -> None:
    with pytest.raises(InputError, match="CompressedAllReduce: there is no process group"):
        bench.CompressedAllReduce(nn.Linear(2, 2), "sgd")
