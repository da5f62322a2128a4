"""What every recipe does in a run. Each law is a function that asserts it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from bench.aggregators import Mean, Sum
from bench.algorithm import Algorithm
from bench.collectives.choice import CollectiveName, cuts_or_sums
from bench.gradients.layout import Layout
from bench.laws.kills import assert_goes_on
from bench.laws.toys import Bilinear, Dyadic, Recorder, Toy, counted, dyadic_data, flat, loader, toy_data, train
from bench.loops.plain import CompressedAllReduce
from bench.runs.columns import MEASURED
from bench.traffic import Traffic

M = 3
PARITY_ROUNDS = 22  # past round 20, in which a worker that last uploaded in round 9 must upload


def a_mean_at_m_times_the_rate_is_a_sum(recipe: Algorithm) -> None:
    """Aggregators differ by a factor, and nothing else in a round depends on it."""
    if recipe.local_steps is not None:
        return  # the rate is that of steps in between, which no server scales
    if recipe.moments is not None:
        return  # Adam's steps do not grow with the answer
    recipe = replace(recipe, aggregator=Sum(), downlink=None, downlink_feedback=None)
    total = train(recipe, lambda: Dyadic(lr=0.25), dyadic_data())
    mean = train(replace(recipe, aggregator=Mean()), lambda: Dyadic(lr=1.0), dyadic_data())
    torch.testing.assert_close(mean.weights, total.weights)


def counts_add_up(recipe: Algorithm) -> None:
    """The ledger counts what happened, round by round."""
    recorder = Recorder()
    run = train(recipe, rounds=40, data=toy_data(800), callbacks=[recorder])
    ledger, offer_bits = run.ledger, run.strategy.cohort.workers.offer_bits
    uploads = np.array(recorder.uploads)
    assert ledger["rounds"] == len(uploads) == 40
    assert ledger["uploads"] == uploads.sum()
    broadcast = recipe.broadcast.settled.blank(1, (387,), torch.zeros(387))
    assert ledger["downlink"] == broadcast.kind
    if broadcast.kind in ("dense", "sign"):  # their length depends only on d
        assert ledger["downlink_bits"] == ledger["rounds"] * (int(broadcast.num_bits) + offer_bits)
    assert ledger["downlink_bits"] > 0
    if not recipe.broadcast.may_exceed_dense:
        assert ledger["downlink_bits"] <= ledger["rounds"] * (387 * 32 + offer_bits)
    measured = run.strategy.ledger.state_dict()
    assert not any(np.any(measured[name]) for name in MEASURED if not name.startswith("comp"))
    adaptive, looks_back = recipe.rule.adaptive, recipe.rule.second_pass
    assert ledger["control_bits"] == (ledger["rounds"] * 4 if adaptive else 0)
    if not looks_back:
        steps = recipe.local_steps.num_steps if recipe.local_steps else 1
        assert ledger["num_backwards"] == ledger["rounds"] * 4 * steps
    else:  # workers may skip from round 10 on unless forced to upload; to decide takes a second backward pass
        assert ledger["rounds"] * 4 < ledger["num_backwards"] <= (2 * ledger["rounds"] - 10) * 4


def traffic_adds_up_to_the_ledger(recipe: Algorithm) -> None:
    """What seconds are computed from is what was counted."""
    ledger = train(recipe, rounds=20, data=toy_data(800)).ledger
    traffic = Traffic(**ledger["traffic"])
    assert sum(traffic.worker_bits) == ledger["uplink_bits"]
    assert traffic.answer_bits + traffic.agreement_bits == ledger["downlink_bits"]
    assert traffic.flag_rounds * 4 == ledger["control_bits"]
    assert traffic.answers == ledger["rounds"]
    assert sum(traffic.worker_messages) == ledger["uploads"] * (2 if traffic.agreement_bits else 1)
    assert traffic.longest_upload_bits + traffic.agreement_bits >= ledger["uplink_bits"] / 4
    half = train(recipe, rounds=10, data=toy_data(800)).ledger
    assert (traffic - Traffic(**half["traffic"])).answers == 10


ALONE = (a_mean_at_m_times_the_rate_is_a_sum, counts_add_up, traffic_adds_up_to_the_ledger)


def goes_on_where_it_was_killed(recipe: Algorithm, folder: Path) -> None:
    """44 rounds, 30 an epoch, killed in the first epoch, between epochs, or in the second.

    At least eleven rounds are left, within which every skipping worker must upload.
    """
    assert_goes_on(recipe, [7, 30, 33], folder / "saved.ckpt", max_steps=44, module=lambda: Toy(dropout=0.2))


def trace(recipe: Algorithm) -> list[dict[str, Any]]:
    """The ledger after each of 24 rounds of exact arithmetic, the same on every machine."""
    recorder = Recorder()
    module = Bilinear if recipe.compressor.follows else Dyadic  # only Bilinear has a matrix
    train(recipe, module, dyadic_data(), workers=4, rounds=24, callbacks=[recorder])
    return list(map(counted, recorder.ledgers))


def keeps_its_golden_trace(recipe: Algorithm, file: Path, rewrite: bool) -> bool:
    """Compares the trace with the one in a file. Returns whether there was one; else, or to rewrite it, it is written
    where that is asked for."""
    now = trace(recipe)
    if rewrite:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[\n" + ",\n".join(map(json.dumps, now)) + "\n]\n", "utf-8")
    if not file.exists():
        return False
    for here, then in zip(now, json.loads(file.read_text("utf-8")), strict=True):
        assert here == counted(then)
    return True


def in_processes(rank: int, folder: Path, recipes: Mapping[str, Algorithm]) -> None:
    """What one of M real processes ends with under each recipe and collective, written to a file of its own."""
    dist.init_process_group("gloo", rank=rank, world_size=M)
    ended = {}
    layout = Layout(Toy().named_parameters())
    for name, recipe in recipes.items():
        can_shard = any(cuts_or_sums(recipe, layout.segments(recipe.granularity), layout.vector))
        collectives: list[CollectiveName] = ["gather", "sharded"] if can_shard else ["gather"]
        for collective in collectives:
            lightning.seed_everything(3, verbose=False)
            toy = Toy()
            optimizer = toy.configure_optimizers()
            sync = CompressedAllReduce(toy, recipe, collective=collective)
            for _, (x, y) in zip(range(PARITY_ROUNDS), loader(toy_data(), M, [rank]), strict=False):
                optimizer.zero_grad()
                loss_of = partial(lambda x, y: F.cross_entropy(toy.network(x), y), x, y)  # noqa: B023  used at once
                loss_of().backward()
                sync(optimizer, loss_of)
                optimizer.step()
            ended[f"{name} {collective}"] = flat(toy), counted(sync.ledger.state_dict())
    torch.save(ended, folder / f"{rank}.pt")
    dist.destroy_process_group()


def processes_give_the_simulations_bits(recipe: Algorithm, name: str, folder: Path) -> None:
    """Weights and ledgers of `in_processes` are those of a simulation."""
    simulated = train(recipe, workers=M, rounds=PARITY_ROUNDS, engine="loop")
    for rank in range(M):
        ended = {
            case: end for case, end in torch.load(folder / f"{rank}.pt").items() if case.rpartition(" ")[0] == name
        }
        assert ended
        for weights, ledger in ended.values():
            assert torch.equal(weights, simulated.weights)
            assert ledger == simulated.ledger
