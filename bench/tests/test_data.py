"""Shards are equal, random, disjoint, and a function of (seed, epoch, rank). Images are as torchvision has them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision import transforms

from bench.batches import Dealt, deal
from bench.errors import InputError
from datamodules import mnist
from datamodules.arrays import load_npz
from datamodules.digits import Digits
from datamodules.images import ImageSet
from datamodules.mnist import MNIST
from datamodules.sharding import IIDSampler


def rounds(sampler: IIDSampler) -> torch.Tensor:
    """(T, L, B): the indices of an epoch."""
    return torch.stack(list(sampler))


def test_shards() -> None:
    sampler = IIDSampler(1003, 10, range(10), 7, seed=4)
    shards = sampler.shards()
    assert shards.shape == (10, 100)
    assert len(shards.unique()) == 1000
    epoch = rounds(sampler)
    assert epoch.shape == (14, 10, 7)
    assert torch.equal(epoch.transpose(0, 1).flatten(1), shards[:, :98])


def test_a_shard_depends_on_seed_epoch_and_rank_only() -> None:
    def shards(seed: int, epoch: int, ranks: list[int]) -> torch.Tensor:
        sampler = IIDSampler(1000, 10, ranks, 5, seed)
        sampler.set_epoch(epoch)
        return sampler.shards()

    everyone = shards(1, 2, list(range(10)))
    for rank in range(10):
        assert torch.equal(shards(1, 2, [rank])[0], everyone[rank])
    for seed, epoch in ((2, 2), (1, 3), (2, 1)):
        assert not torch.equal(shards(seed, epoch, [0])[0], everyone[0])
    # random: a shard of a shuffled set is no block of it
    assert everyone[0].diff().abs().float().mean() > 100


def test_resuming_inside_an_epoch() -> None:
    sampler, other = IIDSampler(400, 4, range(4), 10, 0), IIDSampler(400, 4, range(4), 10, 0)
    whole, started = rounds(sampler), iter(other)
    first = [next(started) for _ in range(3)]
    third = IIDSampler(400, 4, range(4), 10, 0)
    third.skip = other.rounds_done
    assert torch.equal(torch.stack([*first, *third]), whole)
    assert len(list(third)) == 10  # the next epoch is whole again
    assert len(list(other)) == 10  # as it is after an epoch that was cut short


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


def test_a_download_becomes_an_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision is asked once; its data are the arrays. Without a network here, a stand-in answers for it."""
    from torchvision import datasets

    rng, asked = np.random.default_rng(1), []

    def stand_in(root: str, train: bool, download: bool) -> SimpleNamespace:
        asked.append((root, train, download))
        num = 20 if train else 5
        images = torch.from_numpy(rng.integers(0, 256, (num, 28, 28), dtype=np.uint8))
        return SimpleNamespace(data=images, targets=torch.arange(num) % 10)

    monkeypatch.setattr(datasets, "MNIST", stand_in)
    data = MNIST(data_dir=str(tmp_path / "data"))
    data.prepare_data()
    data.prepare_data()
    assert [train for _, train, _ in asked] == [True, False]
    assert load_npz(tmp_path / "data" / "mnist.npz", (28, 28), 10).y_test.tolist() == [0, 1, 2, 3, 4]
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["mnist.npz"]
    assert mnist.MNIST.mean == (0.1307,)


def test_dealing() -> None:
    x, y = torch.arange(24).view(12, 2), torch.arange(12)
    dealt = deal({"x": x, "y": y, "name": "kept"}, 3)
    assert dealt["x"].shape == (3, 4, 2)
    assert dealt["y"][1].tolist() == [4, 5, 6, 7]
    assert dealt["name"] == "kept"
    assert deal(Dealt((x, y)), 5) == (x, y)
    with pytest.warns(UserWarning, match="12 samples: 2 left out"):
        assert deal([x, y], 5)[1].shape == (5, 2)
    with pytest.raises(InputError, match="12 samples for 13 workers"):
        deal([x], 13)
    with pytest.raises(InputError, match="batch"):
        deal([x, y[:3]], 3)
