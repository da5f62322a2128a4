"""Augmentations equal torchvision's, draw for each image separately, and do not depend on which workers are local."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as TF

from bench.errors import InputError
from bench.kernels.noise import Noise
from bench.suite.datamodules.augmentation import Augmentation, Crop, Flip, Rotation, augment
from bench.suite.datamodules.cifar import CIFAR10, CIFAR100
from bench.suite.datamodules.images import ImageSet
from bench.suite.datamodules.sharding import RoundSampler
from bench.suite.datamodules.splits import IID

ALL: list[Augmentation] = [Crop(4), Flip(), Rotation(15)]


def pictures(num_images: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (num_images, channels, 32, 32), generator=generator, dtype=torch.uint8)


def drawn(augmentation: Augmentation, num_images: int) -> Tensor:
    return augmentation.draw(num_images, torch.Generator().manual_seed(1))


def torchvisions(augmentation: Augmentation, image: Tensor, draw: Tensor) -> Tensor:
    """Apply torchvision's transform to one image (C, H, W), given its draw."""
    if isinstance(augmentation, Crop):
        framed = TF.pad(image, [augmentation.padding])
        return TF.crop(framed, int(draw[0]), int(draw[1]), 32, 32)
    if isinstance(augmentation, Flip):
        return TF.hflip(image) if draw else image
    angle = torch.atan2(draw[1], draw[0]).rad2deg().item()
    return TF.rotate(image, angle, interpolation=TF.InterpolationMode.NEAREST)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", [*ALL, Crop(0), Rotation(180)], ids=str)
def test_images_are_torchvisions(augmentation: Augmentation, channels: int) -> None:
    """Given the same draws, all pixels are equal, except that a rotation may round half a pixel the other way."""
    images, draws = pictures(200, channels), drawn(augmentation, 200)
    ours = augmentation.apply(images, draws)
    theirs = torch.stack([torchvisions(augmentation, *pair) for pair in zip(images, draws, strict=True)])
    assert ours.dtype == torch.uint8
    if isinstance(augmentation, Rotation):
        assert (ours == theirs).double().mean() > 0.999
    else:
        assert torch.equal(ours, theirs)


def test_draws_are_torchvisions_in_distribution() -> None:
    """Windows, flips and angles are uniform: in 40,000 draws, means within 5 standard errors, variances to 5 %."""
    angles = torch.atan2(*drawn(Rotation(15), 40_000).T.flip(0)).rad2deg()
    windows, flips = drawn(Crop(4), 40_000).double(), drawn(Flip(), 40_000).double()
    for values, mean, variance in (
        (windows[:, 0], 4, 80 / 12),
        (windows[:, 1], 4, 80 / 12),
        (flips, 1 / 2, 1 / 4),
        (angles, 0, 30**2 / 12),
    ):
        error = 5 / np.sqrt(40_000)
        assert abs(values.mean() - mean) < error * np.sqrt(variance)
        assert abs(values.var() / variance - 1) < 2 * error
    assert windows.min() == 0
    assert windows.max() == 8
    assert abs(np.corrcoef(windows.T)[0, 1]) < 5 / np.sqrt(40_000)
    assert angles.abs().max() < 15


def test_a_worker_does_not_see_who_else_there_is() -> None:
    images = pictures(40).view(4, 10, 3, 32, 32)
    noise = [Noise(3, 7, rank) for rank in range(4)]
    together = augment(images, ALL, noise)
    for rank in range(4):
        assert torch.equal(augment(images[rank, None], ALL, [noise[rank]])[0], together[rank])
    for other in (Noise(4, 7, 0), Noise(3, 8, 0), Noise(3, 7, 1)):
        assert not torch.equal(augment(images[:1], ALL, [other])[0], together[0])
    assert augment(images, (), noise) is images


def test_every_image_has_a_draw_of_its_own() -> None:
    same = pictures(1).expand(50, 3, 32, 32)[None]
    assert len(augment(same, [Crop(4)], [Noise(0, 0, 0)])[0].unique(dim=0)) > 25


def test_rounds_have_noise_of_their_own() -> None:
    """Noise depends on (seed, round, rank), counting rounds across epochs; resuming in mid-epoch changes nothing."""

    def sampler(skip: int, epoch: int, ranks: Sequence[int] = range(4)) -> list[list[Noise]]:
        made = RoundSampler(np.zeros(400), IID(), 4, ranks, 10, seed=5)
        made.set_epoch(epoch)
        made.done_before = {"epoch": epoch, "rounds_done": skip}
        return [made.noise() for _ in made]

    first, second = sampler(0, 0), sampler(0, 1)
    assert [row[2] for row in first] == [Noise(5, t, 2) for t in range(10)]
    assert [row[2] for row in second] == [Noise(5, t, 2) for t in range(10, 20)]
    assert sampler(3, 1) == second[3:]
    assert sampler(0, 0, [2]) == [[row[2]] for row in first]


def test_images_change_before_they_are_normalised() -> None:
    """So padding is black, not grey. Images are channels last in memory, as convolutions prefer it."""
    images = pictures(6).movedim(1, -1).numpy()
    plain = ImageSet(images, np.arange(6, dtype=np.uint8), CIFAR10.mean, CIFAR10.std, torch.device("cpu"))
    dark = ImageSet(
        images, np.arange(6, dtype=np.uint8), CIFAR10.mean, CIFAR10.std, torch.device("cpu"), lambda x: 0 * x
    )
    where = torch.tensor([[0, 1], [4, 5]])
    black = -torch.tensor(CIFAR10.mean) / torch.tensor(CIFAR10.std)
    torch.testing.assert_close(dark[where][0], black[:, None, None].expand(2, 2, 3, 32, 32))
    assert plain[where][0][0].is_contiguous(memory_format=torch.channels_last)


def test_bad_augmentations() -> None:
    with pytest.raises(InputError, match="padding: -1"):
        Crop(-1)
    for degrees in (-1, 181):
        with pytest.raises(InputError, match=f"degrees: {degrees}"):
            Rotation(degrees)


def test_the_published_slip_is_an_option() -> None:
    assert CIFAR100().std != CIFAR100.mean
    assert CIFAR100(std=CIFAR100.mean).std == CIFAR100.mean
    for std in ([0.5], [0.5, 0.5, 0]):
        with pytest.raises(InputError, match="three numbers above 0 are needed"):
            CIFAR100(std=std)
    assert [type(a) for a in CIFAR100().augmentations] == [Crop, Flip, Rotation]
    assert CIFAR10(augmentations=()).augmentations == ()
