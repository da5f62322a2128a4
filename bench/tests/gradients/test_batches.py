"""Batches of any type are dealt completely, or rejected with the component's name; too short ones are left out."""

import collections
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors

import bench
from bench.errors import InputError
from bench.gradients.batches import Shards
from bench.gradients.counting import SampleCounts
from bench.gradients.dealing import deal
from bench.laws.toys import QUIET, Toy, flat, toy_data


class Pair(NamedTuple):
    first: Tensor
    second: list[str]


@dataclass(frozen=True)
class Sample:
    x: Tensor
    tags: list[int]
    fixed: str = "all"


def dealt(batch: Any, num_workers: int = 2, **options: Any) -> Shards:
    shards = deal(batch, num_workers, **options)
    assert shards is not None
    return shards


X, NAMES = torch.arange(12.0).view(6, 2), list("abcdef")


@pytest.mark.parametrize("num_workers", [2, 3])
def test_everything_is_cut_alike(num_workers: int) -> None:
    batch = {
        "x": X,
        "user": collections.UserDict(x=X, names=NAMES),
        "pair": Pair(X, NAMES),
        "sample": Sample(X, list(range(6))),
        "array": np.arange(6),
        "objects": np.array(NAMES, dtype=object),
        "tuple": tuple(NAMES),
        "boxes": [{"box": torch.zeros(n, 4)} for n in range(6)],
        "views": [X, -X],
        "scale": torch.tensor(2.0),
        "word": "train",
        "number": 3,
        "nothing": None,
    }
    shards, share = dealt(batch, num_workers), 6 // num_workers
    for worker in range(num_workers):
        mine, own = slice(worker * share, (worker + 1) * share), shards.of(worker)
        assert own.keys() == batch.keys()
        for x in (own["x"], own["user"]["x"], own["pair"].first, own["sample"].x, own["views"][0], -own["views"][1]):
            assert torch.equal(x, X[mine])
        for names in (own["user"]["names"], own["pair"].second, own["objects"].tolist(), list(own["tuple"])):
            assert names == NAMES[mine]
        assert own["array"].tolist() == own["sample"].tags == list(range(6))[mine]
        assert [len(entry["box"]) for entry in own["boxes"]] == list(range(6))[mine]
        assert type(own["user"]) is collections.UserDict
        assert (own["word"], own["number"], own["nothing"], own["sample"].fixed) == ("train", 3, None, "all")
        assert own["scale"] == 2


def test_lists_without_a_tensor() -> None:
    """Lists are split both as columns and as one list or dict per sample; ambiguous ones are rejected."""
    own = dealt((NAMES, list(range(6)))).of(1)
    assert own == (NAMES[3:], [3, 4, 5])
    words = [["a"], ["b", "c"], ["d"], ["e"], ["f", "g", "h"], ["i"]]
    assert dealt((X, words)).of(0)[1] == words[:3]
    assert dealt((X, [{"id": n} for n in range(6)])).of(1)[1] == [{"id": n} for n in (3, 4, 5)]
    with pytest.raises(InputError, match=r"batch\[1\]: 2 entries that hold 2 each"):
        deal((X[:2], (["a", "b"], ["c", "d"])), 2)


def test_one_worker_takes_what_it_gets() -> None:
    """A single worker gets components of any type unchanged, tensor subclasses too; read-only Mappings can be split."""

    class Own(list):
        pass

    frozen, own, image = MappingProxyType({"x": X}), Own([X]), tv_tensors.Image(torch.zeros(3, 4, 4))
    batch = dealt((frozen, own, image, iter("ab")), 1).of(0)
    assert batch[0] is frozen
    assert batch[1] is own
    assert type(batch[2]) is tv_tensors.Image
    assert list(batch[3]) == ["a", "b"]
    assert dealt({"f": frozen}).of(1)["f"]["x"].tolist() == X[3:].tolist()


def test_who_looks_gets_a_copy() -> None:
    """A step may modify its batch: another pass reads the original contents, and the loader's batch stays unchanged."""
    for num_workers in (1, 2):
        batch = {"x": X.clone(), "names": list(NAMES)}
        shards = dealt(batch, num_workers)
        own = shards.of(0)
        own.pop("x").zero_()
        own["names"].clear()
        again = shards.of(0)
        assert torch.equal(again["x"], X[: 6 // num_workers])
        assert again["names"] == NAMES[: 6 // num_workers]
        assert torch.equal(batch["x"], X)


class Opaque:
    def __init__(self) -> None:
        self.x = X


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        ({"x": X, "names": NAMES[:4]}, r"batch\['names'\]: a list of 4 entries; 6 are needed"),
        ({"x": X, "size": (224, 224)}, r"batch\['size'\]: a tuple of 2 entries; 6 are needed"),
        ((X, np.zeros(5)), r"batch\[1\]: a ndarray of 5 entries; 6 are needed"),
        ((X, X[:3]), r"batch\[1\]: a Tensor of 3 entries; 6 are needed"),
        (Sample(X, [1]), r"batch\.tags: a list of 1 entries; 6 are needed"),
        ((X, X.to_sparse()), r"batch\[1\]: a tensor of layout torch\.sparse_coo"),
        ((X, iter("ab")), r"batch\[1\]: a str_.*iterator; it cannot be cut"),
        ((X, [{"id": 1}, {"id": 2}]), r"batch\[1\]: a list of 2 entries; 6 are needed"),
        ((X, {1, 2}), r"batch\[1\]: a set; it cannot be cut"),
        ((X, Opaque()), r"batch\[1\]: a Opaque; it cannot be cut"),
        (([torch.zeros(3, 8, 8)] * 4, [{"box": torch.zeros(2, 4)}] * 4), r"batch\[1\]"),  # a list of pictures: N is 3
        ((X[:2], [{"box": X[:2]}, {"box": X[:2]}]), r"batch\[1\]: 2 entries that hold 2 each"),
        (3, "batch: a int without samples"),
    ],
)
def test_what_cannot_be_cut_is_named(batch: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        deal(batch, 2)
    assert deal(batch, 1) is not None, "a single worker takes the batch as it is"


class Attributed(dict[str, Any]):
    """Its keys are attributes, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__ = self


class Inner(MutableMapping[str, Any]):
    """Keeps its entries in a dict of its own, which a shallow copy would share."""

    def __init__(self, entries: dict[str, Any]) -> None:
        self.entries = dict(entries)

    def __getitem__(self, key: str) -> Any:
        return self.entries[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.entries[key] = value

    def __delitem__(self, key: str) -> None:
        del self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass
class Derived:
    x: Tensor

    def __post_init__(self) -> None:
        self.twice = 2 * self.x

    @cached_property
    def thrice(self) -> Tensor:
        return 3 * self.x


def test_nothing_of_the_whole_batch_is_left() -> None:
    batch = Attributed(x=X)
    assert dealt(batch).of(1).x.tolist() == X[3:].tolist()
    batch = Inner({"x": X})
    assert dealt(batch).of(1)["x"].tolist() == X[3:].tolist()
    assert batch["x"] is X
    batch = Derived(X)
    assert batch.thrice.shape == X.shape
    own = dealt(batch).of(1)
    assert own.twice.tolist() == (2 * X[3:]).tolist()
    assert own.thrice.tolist() == (3 * X[3:]).tolist()
    batch = collections.OrderedDict(x=X)
    batch.weights = 2 * X  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match=r"batch\.weights: an attribute beside the entries"):
        deal(batch, 2)


@pytest.mark.parametrize("size", [6, 4])
@pytest.mark.parametrize(
    "listed", [lambda x: [{"x": each} for each in x], lambda x: [(each, each) for each in x], lambda x: (list(x), [*x])]
)
def test_a_loader_of_lists_is_cut_between_samples(listed: Callable[[Tensor], Any], size: int) -> None:
    """Also where all samples have one length, which the batch alone does not tell from N; and in a last batch."""
    counts, loader = SampleCounts(), SimpleNamespace(batch_size=6)
    for samples in (torch.randn(6, 8), torch.randn(size, 8)):
        shards = dealt(listed(samples), 2, loaders=loader, counts=counts)
        for worker, own in enumerate(samples.chunk(2)):
            assert repr(shards.of(worker)) == repr(listed(own))
    assert dealt(torch.zeros(6, 8), 2, loaders=loader, counts=counts).of(1).shape == (3, 8)
    if size < 6:
        with pytest.raises(InputError, match="ambiguous whether lists or tensors hold the samples, drop_last=True"):
            deal(listed(samples[:, :3]), 2, loaders=loader)


def test_fields_are_no_samples() -> None:
    """Also where there are as many of them as samples, and a sample has several rows."""
    loader = SimpleNamespace(batch_size=2)
    x, y = torch.arange(8.0).view(4, 2), torch.arange(4)
    assert [part.tolist() for part in dealt((x, y), 2, loaders=loader).of(1)] == [x[2:].tolist(), [2, 3]]
    with pytest.raises(InputError, match="2 tensors of 4 entries; it is ambiguous"):
        deal((x, -x), 2, loaders=loader)
    views = [torch.zeros(10, 3), torch.zeros(10, 3)]  # of a loader that says 6
    assert [len(part) for part in dealt(views, 2, loaders=SimpleNamespace(batch_size=6)).of(1)] == [5, 5]
    single = DataLoader(TensorDataset(x[:3], y[:3]), batch_size=20)  # whose only batch is short
    assert [len(part) for part in dealt(next(iter(single)), 3, loaders=single).of(1)] == [1, 1]


def test_loaders_of_a_dict_have_lengths_of_their_own() -> None:
    batch = {"a": (X, NAMES), "b": torch.arange(4)}
    own = dealt(batch, loaders={"a": ..., "b": ...}).of(1)
    assert own["a"][1] == NAMES[3:]
    assert own["b"].tolist() == [2, 3]
    assert dealt([X, X[:2]], loaders=[..., ...]).of(0)[1].shape == (1, 2)
    with pytest.raises(InputError, match=r"batch\['b'\]"):
        deal(batch, 2)
    assert dealt({"a": X, "b": None}, loaders={"a": ..., "b": ...}).of(1)["b"] is None, "a loader may be exhausted"


def test_local_steps_cut_by_the_same_rule() -> None:
    """The parts for local steps are split as shares of workers are, also with one worker."""
    for num_workers in (1, 2):
        shards = dealt({"x": X, "names": NAMES, "word": "w"}, num_workers, num_parts=3)
        parts = [part.of(0) for part in shards.parts(3)]
        share = 2 // num_workers
        assert [part["names"] for part in parts] == [NAMES[h * share : (h + 1) * share] for h in range(3)]
        assert torch.equal(torch.cat([part["x"] for part in parts]), X[: 3 * share])
        assert {part["word"] for part in parts} == {"w"}


def test_batches_that_are_all_too_short_are_refused() -> None:
    """A fit that plays no round would look like one that learned nothing."""
    for max_epochs, max_steps in ((2, -1), (None, 12)):
        strategy = bench.CompressedStrategy("sgd", workers=4)
        trainer = Trainer(strategy=strategy, **QUIET, max_epochs=max_epochs, max_steps=max_steps)
        with (
            pytest.warns(UserWarning, match="batch of 3 samples is left out"),
            pytest.raises(InputError, match="batch: all so far are too short; at least 4 samples"),
        ):
            trainer.fit(Toy(), DataLoader(toy_data(), batch_size=3))


def test_a_last_batch_that_is_too_short_is_left_out() -> None:
    """Two epochs give one warning, and the short batches make no rounds."""
    x, y = toy_data().tensors
    data = torch.utils.data.TensorDataset(x[:18], y[:18])
    trainer, module = Trainer(strategy=bench.CompressedStrategy("sgd", workers=4), **QUIET, max_epochs=2), Toy()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(data, batch_size=8))
    said = [str(warning.message) for warning in told if warning.category is UserWarning]
    assert said == ["batch of 2 samples is left out: too short for 4 workers"]
    assert trainer.strategy.ledger.rounds == 4  # pyright: ignore[reportAttributeAccessIssue]
    assert flat(module).isfinite().all()
