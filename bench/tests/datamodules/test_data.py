"""Shards depend on the split and (seed, epoch, rank) only. Images are normalised as by torchvision."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision import transforms

from bench.errors import InputError
from bench.gradients.batches import Dealt, as_shards
from bench.gradients.dealing import deal
from bench.suite.datamodules.cifar import CIFAR100  # noqa: F401  for the scan
from bench.suite.datamodules.digits import Digits
from bench.suite.datamodules.downloads import TorchvisionData
from bench.suite.datamodules.images import ImageSet
from bench.suite.datamodules.mixed import Mixed
from bench.suite.datamodules.sharding import RoundSampler
from bench.suite.datamodules.splits import IID, Dirichlet, Fixed, Holdings, Labels, Sources, Split, picture
from bench.tests.found import subclasses

LABELS = np.random.default_rng(2).integers(0, 10, 3000)


def iid(num_samples: int, num_workers: int, ranks: Sequence[int], batch_size: int, seed: int) -> RoundSampler:
    return RoundSampler(np.zeros(num_samples), IID(), num_workers, ranks, batch_size, seed)


def rounds(sampler: RoundSampler) -> torch.Tensor:
    """Return the sample indices of an epoch, (T, L, B)."""
    return torch.stack(list(sampler))


def test_shards() -> None:
    sampler = iid(1003, 10, range(10), 7, seed=4)
    shards = sampler.shards()
    assert shards.shape == (10, 98)
    assert len(shards.unique()) == 980
    epoch = rounds(sampler)
    assert epoch.shape == (14, 10, 7)
    assert torch.equal(epoch.transpose(0, 1).flatten(1), shards)


def test_a_shard_depends_on_seed_epoch_and_rank_only() -> None:
    def shards(seed: int, epoch: int, ranks: list[int]) -> torch.Tensor:
        sampler = iid(1000, 10, ranks, 5, seed)
        sampler.set_epoch(epoch)
        return sampler.shards()

    everyone = shards(1, 2, list(range(10)))
    for rank in range(10):
        assert torch.equal(shards(1, 2, [rank])[0], everyone[rank])
    for seed, epoch in ((2, 2), (1, 3), (2, 1)):
        assert not torch.equal(shards(seed, epoch, [0])[0], everyone[0])
    # shards are random, not contiguous blocks
    assert everyone[0].diff().abs().float().mean() > 100


def test_resuming_inside_an_epoch() -> None:
    sampler, other = iid(400, 4, range(4), 10, 0), iid(400, 4, range(4), 10, 0)
    whole, started = rounds(sampler), iter(other)
    first = [next(started) for _ in range(3)]
    third = iid(400, 4, range(4), 10, 0)
    third.done_before = {"epoch": 0, "rounds_done": other.rounds_done}
    assert torch.equal(torch.stack([*first, *third]), whole)
    assert len(list(third)) == 10  # the next epoch is whole again
    assert len(list(other)) == 10  # so it is after an epoch that was cut short


SPLITS = [
    IID(), Fixed(), Labels(1), Labels(2), Labels(10), Labels(2, shared=True), Dirichlet(0.1), Dirichlet(100.0),
    Sources(4),
]  # fmt: skip


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_every_split(split: Split) -> None:
    """A worker's shard has only samples that it holds, and does not depend on which other workers are local.

    Shards differ between epochs and between seeds; holdings stay the same in all epochs.
    """

    def sampler(ranks: Sequence[int], seed: int = 3, epoch: int = 0) -> RoundSampler:
        made = RoundSampler(LABELS, split, 15, ranks, 8, seed)
        made.set_epoch(epoch)
        return made

    everyone = sampler(range(15))
    assert rounds(everyone).shape == (25, 15, 8)
    for rank, own in enumerate(everyone.deal()):
        assert len(np.unique(own)) == len(own)
        assert set(everyone.shards()[rank].tolist()) <= set(own.tolist())
        assert torch.equal(sampler([rank]).shards()[0], everyone.shards()[rank])
    later = sampler(range(15), epoch=1)
    assert not torch.equal(later.shards(), everyone.shards())
    assert not torch.equal(sampler(range(15), seed=4).shards(), everyone.shards())
    if isinstance(split, Holdings):
        for now, then in zip(everyone.deal(), later.deal(), strict=True):
            assert set(now.tolist()) == set(then.tolist())
    if not getattr(split, "shared", False):
        held = np.concatenate(everyone.deal())
        assert len(np.unique(held)) == len(held) == len(LABELS)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("num_workers", "num_labels"), [(15, 2), (10, 1), (7, 3), (4, 9), (3, 10)])
def test_labels_of_workers(num_workers: int, num_labels: int, shared: bool) -> None:
    """Each worker holds L labels, whose numbers of holders differ by at most 1; if `shared`, all samples of them."""
    shards = Labels(num_labels, shared).deal(LABELS, num_workers, seed=1, epoch=0)
    held = [np.unique(LABELS[own]) for own in shards]
    assert {len(labels) for labels in held} == {num_labels}
    holders = np.bincount(np.concatenate(held), minlength=10)
    assert holders.max() - holders.min() <= 1
    if shared:
        for own, labels in zip(shards, held, strict=True):
            assert len(own) == np.isin(LABELS, labels).sum()


@pytest.mark.parametrize("num_workers", [2, 5, 10])
def test_even_and_odd_workers_have_sources_of_their_own(num_workers: int) -> None:
    shards = Sources(4).deal(LABELS, num_workers, seed=1, epoch=0)
    assert all((LABELS[own] >= 4).all() if rank % 2 else (LABELS[own] < 4).all() for rank, own in enumerate(shards))
    with pytest.raises(InputError, match="workers: 1; split=sources needs at least 2"):
        Sources(4).deal(LABELS, 1, seed=1, epoch=0)
    for parts in (shards[::2], shards[1::2]):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_data_sets_as_one(tmp_path: Path) -> None:
    """Digits are centred in a black frame, with three equal channels. `kinds` tell the sets apart, labels do not."""
    rng = np.random.default_rng(0)
    for name, shape in (("cifar10", (32, 32, 3)), ("mnist", (28, 28))):
        x, y = rng.integers(1, 256, (40, *shape), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10
        np.savez(tmp_path / f"{name}.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    mixed = Mixed(str(tmp_path)).load()
    digits = np.load(tmp_path / "mnist.npz")["x_train"]
    assert mixed.x_train.shape == (60, 32, 32, 3)
    assert mixed.x_test.shape == (20, 32, 32, 3)
    assert np.array_equal(mixed.x_train[30:, 2:30, 2:30], digits[..., None].repeat(3, axis=-1))
    assert mixed.x_train[30:].sum(dtype=int) == 3 * digits.sum(dtype=int)
    assert mixed.kinds.tolist() == [*(i % 10 for i in range(30)), *(10 + i % 10 for i in range(30))]
    assert mixed.y_train.max() == 9
    assert mixed.test_kinds.tolist() == list(range(20))
    (photographs, even), (others, odd) = Sources().served(mixed.test_kinds)
    assert photographs.tolist() == list(range(10))
    assert others.tolist() == list(range(10, 20))
    assert (list(range(5))[even], list(range(5))[odd]) == ([0, 2, 4], [1, 3])
    with pytest.raises(InputError, match="num_held_out: 10; they would be from one source"):
        mixed.hold_out(10)


def test_dirichlet_proportions() -> None:
    """E p = 1/M and Var p = (1/M)(1 − 1/M) / (Mα + 1), over classes and seeds."""
    num_workers, alpha = 5, 0.7
    shares = []
    for seed in range(60):
        shards = Dirichlet(alpha).deal(LABELS, num_workers, seed, epoch=0)
        counts = np.stack([np.bincount(LABELS[own], minlength=10) for own in shards])
        shares.append(counts / counts.sum(axis=0))
    p = np.concatenate(shares, axis=1)
    assert p.mean() == pytest.approx(1 / num_workers)
    assert p.var() == pytest.approx((1 / num_workers) * (1 - 1 / num_workers) / (num_workers * alpha + 1), rel=0.1)


@pytest.mark.parametrize(
    ("split", "told"),
    [
        (Labels(0), "num_labels: 0; 1 to 10"),
        (Labels(11), "num_labels: 11; 1 to 10"),
        (Labels(2), "num_labels: 2; 4 workers hold 8 labels, so that nobody holds"),
    ],
)
def test_splits_refuse_nonsense(split: Split, told: str) -> None:
    with pytest.raises(InputError, match=told):
        RoundSampler(LABELS, split, 4, range(4), 8, seed=1)


def test_nobody_may_be_without_samples() -> None:
    with pytest.raises(InputError, match=r"num_labels: 1; 5 workers hold label 0, which has only 2 samples"):
        Labels(1).deal(np.array([1] * 98 + [0] * 2), 10, seed=1, epoch=0)
    with pytest.raises(InputError, match=r"alpha: 0\.0001; leaves some of 15 workers without samples"):
        Dirichlet(1e-4).deal(LABELS, 15, seed=1, epoch=0)  # each of the ten labels goes to hardly more than one worker


def test_those_unheld_are_named() -> None:
    with pytest.raises(InputError) as raised:
        Labels(3).deal(LABELS, 3, seed=1, epoch=0)
    (unheld,) = str(raised.value).split("nobody holds ")[1:]
    assert 0 <= int(unheld) < 10


def test_a_split_is_drawn(tmp_path: Path) -> None:
    """The PNG is the same each time, and differs for another split."""
    drawn = []
    for name, split in (("a", Labels(2)), ("b", Labels(2)), ("c", Dirichlet(0.5))):
        picture(tmp_path / f"{name}.png", split.deal(LABELS, 15, seed=1, epoch=0), LABELS)
        drawn.append((tmp_path / f"{name}.png").read_bytes())
    assert drawn[0][:4] == b"\x89PNG"
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_is_held_out_is_evaluated_on() -> None:
    arrays = Digits().load()
    tuning = arrays.hold_out(100)
    assert np.array_equal(tuning.x_test, arrays.x_train[-100:])
    assert np.array_equal(tuning.y_train, arrays.y_train[:-100])
    with pytest.raises(InputError, match="num_held_out: 1500"):
        arrays.hold_out(1500)


def test_images_are_torchvisions() -> None:
    rng = np.random.default_rng(0)
    for images, mean, std in (
        (rng.integers(0, 256, (6, 28, 28), dtype=np.uint8), (0.1307,), (0.3081,)),
        (rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
    ):
        ours = ImageSet(images, np.arange(6, dtype=np.uint8), mean, std, torch.device("cpu"))
        theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
        x, y = ours[torch.tensor([[4, 0], [2, 2]])]
        assert y.tolist() == [[4, 0], [2, 2]]
        torch.testing.assert_close(x[0, 0], theirs(images[4]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(x[1, 1], theirs(images[2]), rtol=1e-5, atol=1e-5)


def test_digits_are_real_and_normalised() -> None:
    arrays = Digits().load()
    assert arrays.x_train.shape == (1500, 28, 28)
    assert arrays.x_test.shape == (297, 28, 28)
    assert np.bincount(arrays.y_train).min() > 100
    scaled = arrays.x_train / 255
    assert scaled.mean() == pytest.approx(Digits.mean[0], abs=1e-3)
    assert scaled.std() == pytest.approx(Digits.std[0], abs=1e-3)


@pytest.mark.parametrize("data_set", subclasses(TorchvisionData), ids=lambda cls: cls.__name__)
def test_a_download_becomes_an_npz(
    data_set: type[TorchvisionData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision is asked once, and its data are the arrays. A stand-in replaces it, since tests have no network."""
    from torchvision import datasets

    rng, asked = np.random.default_rng(1), []

    def stand_in(root: str, train: bool, download: bool) -> SimpleNamespace:
        asked.append((root, train, download))
        num = 20 if train else 5
        images = rng.integers(0, 256, (num, *data_set.image_shape), dtype=np.uint8)  # CIFAR's type; MNIST has a tensor
        return SimpleNamespace(data=images, targets=(np.arange(num) % 10).tolist())

    monkeypatch.setattr(datasets, data_set.source, stand_in)
    data = data_set(data_dir=str(tmp_path / "data"))
    data.prepare_data()
    data.prepare_data()
    assert [train for _, train, _ in asked] == [True, False]
    assert data.load().y_test.tolist() == [0, 1, 2, 3, 4]
    assert [p.name for p in (tmp_path / "data").iterdir()] == [f"{data_set.source.lower()}.npz"]
    assert len(data.mean) == len(data.std) == data.load().x_train.reshape(20, *data.image_shape[:2], -1).shape[-1]


def test_dealing() -> None:
    x, y = torch.arange(24).view(12, 2), torch.arange(12)
    dealt = deal({"x": x, "y": y, "name": "kept"}, 3)
    assert dealt is not None
    assert dealt.of(2)["x"].shape == (4, 2)
    assert dealt.of(1)["y"].tolist() == [4, 5, 6, 7]
    assert dealt.of(0)["name"] == "kept"
    everyones = (x.view(3, 4, 2), y.view(3, 4))
    stacked = as_shards(Dealt(everyones)).stacked()
    assert all(torch.equal(*pair) for pair in zip(stacked, everyones, strict=True))
    with pytest.warns(UserWarning, match="12 samples: 2 left out"):
        two_each = deal([x, y], 5)
    assert two_each is not None
    assert two_each.stacked()[1].shape == (5, 2)
    with pytest.warns(UserWarning, match="batch of 12 samples is left out: too short for 13 workers"):
        assert deal([x], 13) is None
    with pytest.raises(InputError, match=r"batch\[1\]: a Tensor of 3 entries; 12 are needed"):
        deal([x, y[:3]], 3)
