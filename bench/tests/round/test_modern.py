"""SparseLoCo, SPARTA and DeMo give what their papers' equations give, written out one worker and chunk at a time."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor, nn

from bench.compressors import ChunkTopK, CosineTopK, RandomMask
from bench.errors import InputError
from bench.feedback import DecayingError
from bench.kernels.noise import Noise
from bench.laws.toys import Toy, flat, loader, toy_data, train
from bench.tests.found import RECIPES

M, ROUNDS, SIDE = 4, 6, 8


class Adaptive(Toy):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def own_batches(batch_size: int) -> Iterator[list[list[Tensor]]]:
    """Every worker's batch, round after round."""
    for _, batch in zip(range(ROUNDS), loader(toy_data(), M, range(M), batch_size), strict=False):
        yield [list(own) for own in zip(*(part.chunk(M) for part in batch), strict=True)]


def blocks(shape: torch.Size, side: int) -> Iterator[tuple[slice, ...]]:
    """The chunks of a tensor."""
    largest = [max(k for k in range(1, min(n, side) + 1) if n % k == 0) for n in shape]
    starts = np.ndindex(*(n // k for n, k in zip(shape, largest, strict=True)))
    for start in starts:
        yield tuple(slice(i * k, (i + 1) * k) for i, k in zip(start, largest, strict=True))


def keep_largest(block: np.ndarray, count: int) -> np.ndarray:
    kept = np.zeros(block.size, bool)
    kept[np.argsort(-np.abs(block).ravel(), kind="stable")[: min(count, block.size)]] = True
    return kept.reshape(block.shape)


def trained(worker: nn.Module, optimizer: torch.optim.Optimizer, batch: list[Tensor], steps: int) -> None:
    for part in zip(*(column.chunk(steps) for column in batch), strict=True):
        optimizer.zero_grad()
        worker.training_step(part).backward()  # pyright: ignore[reportCallIssue]
        optimizer.step()


def test_sparseloco() -> None:
    """e ← βe + Δ; the 20 % largest of a chunk, in four bins of 6σ / 4; e ← e − sent; w ← w − mean."""
    beta, share = 0.9, 0.2
    steps = replace(RECIPES["sparseloco"].local_steps, num_steps=2)  # pyright: ignore[reportArgumentType]
    compressor = ChunkTopK(share, side=SIDE, length=SIDE**2, bits=2)
    recipe = replace(RECIPES["sparseloco"], compressor=compressor, feedback=DecayingError(beta), local_steps=steps)
    ours = train(recipe, Adaptive, rounds=ROUNDS, batch_size=4)

    torch.manual_seed(3)
    shared = Adaptive()
    workers = [deepcopy(shared) for _ in range(M)]
    optimizers = [worker.configure_optimizers() for worker in workers]
    errors = [[torch.zeros_like(p) for p in shared.parameters()] for _ in workers]
    for batches in own_batches(4):
        total = [torch.zeros_like(p) for p in shared.parameters()]
        for worker, optimizer, batch, error in zip(workers, optimizers, batches, errors, strict=True):
            worker.load_state_dict(shared.state_dict())
            trained(worker, optimizer, batch, 2)
            for e, before, after, into in zip(error, shared.parameters(), worker.parameters(), total, strict=True):
                e.mul_(beta).add_(before.detach() - after.detach())
                mask, side = torch.zeros_like(e, dtype=torch.bool), SIDE if e.ndim > 1 else SIDE**2
                for block in blocks(e.shape, side):
                    count = max(1, int(share * e[block].numel()))
                    mask[block] = torch.from_numpy(keep_largest(e[block].numpy(), count))
                sent = torch.zeros_like(e)
                sent[mask] = four_levels(e[mask])
                e.sub_(sent)
                into.add_(sent / M)
        with torch.no_grad():
            for p, mean in zip(shared.parameters(), total, strict=True):
                p.sub_(mean)
    torch.testing.assert_close(ours.weights, flat(shared))


def four_levels(values: Tensor) -> Tensor:
    centred = values - values.mean()
    width = 6 * (centred.std() if len(values) > 1 else centred.new_zeros(())) / 4
    bins = torch.clamp(torch.round(centred / width.clamp(min=1e-37) + 2), 0, 3)
    return torch.stack([values[bins == own].mean() for own in bins])


def test_sparta() -> None:
    """After a step of its own, every worker replaces the drawn entries of its parameters by their mean."""
    share = 0.1
    sparta = replace(RECIPES["sparta"], compressor=RandomMask(share), downlink=RandomMask(share))
    ours = train(sparta, Adaptive, rounds=ROUNDS)

    torch.manual_seed(3)
    workers = [Adaptive() for _ in range(1)]
    workers += [deepcopy(workers[0]) for _ in range(M - 1)]
    optimizers = [worker.configure_optimizers() for worker in workers]
    for t, batches in enumerate(own_batches(4)):
        for worker, optimizer, batch in zip(workers, optimizers, batches, strict=True):
            trained(worker, optimizer, batch, 1)
        rows = torch.stack([flat(worker) for worker in workers])
        masks = {tuple(drawn(share, Noise(0, t, rank))) for rank in range(M + 1)}
        assert len(masks) == 1, "the same at all workers and their server"
        mask = torch.tensor(masks.pop())
        rows[:, mask] = rows[:, mask].mean(dim=0)
        for worker, row in zip(workers, rows, strict=True):
            nn.utils.vector_to_parameters(row, worker.parameters())
    everyone = torch.stack([flat(worker) for worker in workers])
    assert not torch.allclose(everyone[0], everyone[1])
    torch.testing.assert_close(ours.weights, everyone.mean(dim=0))
    shared = ours.strategy._averages.apart.shared
    for row, error in zip(everyone, ours.strategy.cohort.workers.kept[:, 0], strict=True):
        torch.testing.assert_close(shared - error, row)


def drawn(share: float, noise: Noise) -> list[int]:
    message = RandomMask(share).compress(torch.zeros(1, 387), (387,), [noise])
    return message.entries(0)[0].tolist()


@pytest.mark.parametrize("share", [0.005, 0.3])
def test_a_mask_draws_each_entry_with_its_probability(share: float) -> None:
    counts = torch.zeros(1000)
    for t in range(400):
        counts[RandomMask(share).compress(torch.zeros(1, 1000), (1000,), [Noise(0, t, 0)]).entries(0)[0]] += 1
    deviation = (400 * share * (1 - share)) ** 0.5
    assert abs(counts.mean() - 400 * share) < 5 * deviation / 1000**0.5
    assert 0.8 < counts.std() / deviation < 1.2


def test_demo() -> None:
    """δ ← βδ + g; the strongest cosines of a chunk; δ ← δ − sent; w ← w − γ sign(mean over senders)."""
    beta, count, lr, decay = 0.9, 5, 0.01, 0.1

    class Decaying(Toy):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=lr, weight_decay=decay)

    demo = replace(RECIPES["demo"], compressor=CosineTopK(count, side=SIDE, length=SIDE), feedback=DecayingError(beta))
    ours = train(demo, Decaying, rounds=ROUNDS)

    torch.manual_seed(3)
    shared = Decaying()
    deltas = [[np.zeros(p.shape) for p in shared.parameters()] for _ in range(M)]
    for batches in own_batches(4):
        sums = [np.zeros(p.shape) for p in shared.parameters()]
        senders = [np.zeros(p.shape) for p in shared.parameters()]
        for batch, delta in zip(batches, deltas, strict=True):
            gradients = torch.autograd.grad(shared.training_step(batch), list(shared.parameters()))
            for d, gradient, total, number in zip(delta, gradients, sums, senders, strict=True):
                d *= beta
                d += gradient.numpy()
                for block in blocks(gradient.shape, SIDE):
                    cosines = np.asarray(dctn(d[block], norm="ortho"))
                    kept = keep_largest(cosines, count)
                    d[block] -= np.asarray(idctn(cosines * kept, norm="ortho"))
                    total[block] += cosines * kept
                    number[block] += kept
        with torch.no_grad():
            for p, total, number in zip(shared.parameters(), sums, senders, strict=True):
                for block in blocks(p.shape, SIDE):
                    mean = np.asarray(idctn(total[block] / number[block].clip(min=1), norm="ortho"))
                    p[block] -= lr * (torch.from_numpy(np.sign(mean)).float() + decay * p[block])
    moved = (ours.weights - flat(shared)).abs() > 1e-4
    assert moved.float().mean() < 0.01, "signs of means near zero may differ by rounding"


def test_a_number_of_entries_is_no_fraction() -> None:
    """However it is written: 2.0, as a yaml may have it, is two entries."""
    x = torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    for kept in (2, 2.0):
        message = ChunkTopK(kept, length=10).compress(x, (40,), [Noise(0, 0, 0)])
        assert int((message.dense() != 0).sum()) == 2 * 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kept": 0}, r"kept: 0; a fraction in \(0, 1\]"),
        ({"kept": 2.5}, "kept: 2.5; a fraction"),
        ({"kept": 1, "side": 0}, "side: 0; at least 1"),
        ({"kept": 1, "length": -1}, "length: -1; at least 1"),
        ({"kept": 1, "bits": 9}, "bits: 9; 1 to 8"),
    ],
)
def test_what_cannot_be_meant(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ChunkTopK(**changes)


@pytest.mark.parametrize(
    ("meant", "told"),
    [
        (lambda: RandomMask(0), r"share: 0; a fraction in \(0, 1\]"),
        (lambda: DecayingError(1.5), r"beta: 1.5; a number in \[0, 1\]"),
        (lambda: replace(RECIPES["sparse"], aggregator=RECIPES["demo"].aggregator), "aggregator: SignOfMean; TopK"),
    ],
)
def test_nor_these(meant: Callable[[], Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        meant()
