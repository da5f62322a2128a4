"""Both implementations of top-k give the index set of a full sort, even if their samples are misleading."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from bench.compressors import TopKWarmUp
from bench.compressors.topk import TopK, top_k_compiled
from bench.errors import InputError
from bench.kernels import passes as kernels
from bench.kernels import selection
from bench.wire.positions import position_code

N = 50_000
assert N > 4 * kernels.SAMPLE, "rows must be long enough to be sampled"


WAYS = {"compiled": top_k_compiled, "accelerators": selection.top_k}


def reference(x: Tensor, segments: tuple[int, ...], counts: tuple[int, ...]) -> Tensor:
    """Return the positions of each segment's k largest |x|, by a full stable sort: of equal ones the first is kept."""
    kept = [
        x[:, a:b].abs().argsort(dim=1, descending=True, stable=True)[:, :k] + a for a, b, k in spans(segments, counts)
    ]
    return torch.cat(kept, dim=1).sort(dim=1).values


def rows() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    normal = torch.randn(2, N, generator=generator)
    burst = normal * 1e-3
    burst[:, 777:1300] = 5.0  # large values where few samples fall
    striped = normal.clone()
    striped[:, ::7] = 0
    return {
        "normal": normal,
        "ties": (normal * 3).round(),
        "two values": normal.sign(),
        "zeros": torch.zeros(2, N),
        "few survivors": torch.where(normal.abs() > 3.5, normal, 0),
        "burst": burst,
        "striped": striped,
        "sorted": normal.sort(dim=1).values,
        "not finite": torch.where(normal > 3, torch.inf, torch.where(normal < -3, torch.nan, normal)),
    }


@pytest.mark.parametrize("density", [1e-4, 0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", rows())
@pytest.mark.parametrize("way", WAYS)
def test_the_largest_are_chosen(way: str, kind: str, density: float) -> None:
    x = rows()[kind]
    segments = (40_000, 10, 9_990)
    counts = TopK(density).counts(segments)
    found, values = WAYS[way](x, segments, counts)
    torch.testing.assert_close(values, x.gather(1, found), rtol=0, atol=0, equal_nan=True)
    assert (found.diff(dim=1) > 0).all()
    if kind == "not finite":  # the order of NaN and infinity may differ from the reference; both come first
        magnitudes = x.abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
        expected = [magnitudes[:, a:b].topk(k).values.sort().values for a, b, k in spans(segments, counts)]
        assert torch.equal(torch.cat(expected, 1), sorted_values(magnitudes.gather(1, found), counts))
    else:
        assert torch.equal(found, reference(x, segments, counts))


@pytest.mark.parametrize("seed", range(16))
def test_both_ways_choose_alike(seed: int) -> None:
    """In any number of rows and segments, sampled or not, with few ties or many."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(most: int) -> int:
        return int(torch.randint(most, (), generator=generator))

    sizes = (1, 2, 9, kernels.FEW - 1, kernels.FEW, 5_000, 4 * kernels.SAMPLE, 4 * kernels.SAMPLE + 1, N)
    segments = tuple(sizes[drawn(len(sizes))] for _ in range(1 + drawn(7)))
    x = torch.randn(1 + drawn(10), sum(segments), generator=generator)
    x = (x * 10 ** drawn(4)).round() if drawn(2) else x
    counts = TopK((1e-4, 0.01, 0.3)[drawn(3)]).counts(segments)
    ours, theirs = selection.top_k(x, segments, counts), top_k_compiled(x, segments, counts)
    assert all(map(torch.equal, ours, theirs))


def spans(segments: tuple[int, ...], counts: tuple[int, ...]) -> list[tuple[int, int, int]]:
    starts = [sum(segments[:i]) for i in range(len(segments))]
    return [(start, start + n, k) for start, n, k in zip(starts, segments, counts, strict=True)]


def sorted_values(values: Tensor, counts: tuple[int, ...]) -> Tensor:
    return torch.cat([part.sort(dim=1).values for part in values.split(counts, dim=1)], dim=1)


@pytest.mark.parametrize("way", WAYS)
def test_a_sample_that_misses_falls_back(way: str) -> None:
    """The selection is exact, even if the sample is unlike the row, so that the guessed threshold is wrong."""
    hashed = (torch.arange(kernels.SAMPLE) * int(kernels.HASH)) & 0xFFFFFFFF
    looked_at = (hashed * N) >> 32
    x = torch.full((1, N), 1.0)
    x[0, looked_at] = 9.0  # k = 500 of these 8192; the sample has no others
    x[0, :300] = 0.5
    assert torch.equal(WAYS[way](x, (N,), (500,))[0], reference(x, (N,), (500,)))
    y = torch.linspace(1, 2, N)[None].clone()
    y[0, looked_at] = 0.0  # the sample sees only zeros, so the threshold is far too low
    assert torch.equal(WAYS[way](y, (N,), (500,))[0], reference(y, (N,), (500,)))
    z = torch.full((1, N), 1.0)
    z[0, looked_at[:150]] = 9.0  # a larger share of the sample than of the row: fewer survivors than k
    assert torch.equal(WAYS[way](z, (N,), (500,))[0], reference(z, (N,), (500,)))


def test_k_of_the_papers_networks() -> None:
    assert sum(TopK(0.01).counts((401_408, 512, 5_120, 10))) == 4_071
    for num_classes, num_parameters, k in ((10, 11_173_962, 111_723), (100, 11_220_132, 112_184)):
        network = resnet18(num_classes=num_classes)
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        sizes = tuple(p.numel() for p in network.parameters())
        assert (sum(sizes), sum(TopK(0.01).counts(sizes))) == (num_parameters, k)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, math.nan])
def test_density_is_a_fraction(density: float) -> None:
    with pytest.raises(InputError, match="density"):
        TopK(density)


def test_positions_cost_what_information_theory_asks() -> None:
    """The code of random positions is within 1 % of log2 C(n, k) bits."""
    n, k = 401_408, 4_014
    positions = torch.randperm(n, generator=torch.Generator().manual_seed(7))[:k].sort().values[None]
    bound = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
    assert bound < int(position_code((n,), (k,)).num_bits(positions)) < 1.01 * bound


@pytest.mark.parametrize("positions", [[0, 1, 2], [97, 98, 99], [0, 50, 99], [0, 1, 99]])
def test_positions_at_the_edges(positions: list[int]) -> None:
    code = position_code((100, 100), (3, 3))
    both = torch.tensor([positions + [p + 100 for p in positions]])
    payload = code.encode(both[0])
    assert torch.equal(code.decode(payload), both[0])
    assert 0 <= 8 * len(payload) - int(code.num_bits(both)) < 8


def test_a_warm_up_keeps_its_code() -> None:
    warming = TopKWarmUp(0.01, code="plain")
    assert warming.settled == TopK(0.01, "plain")
    assert warming.today.code == "plain"
