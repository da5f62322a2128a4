"""Recipes are loaded by name, and keywords change their settings."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bench.aggregators import Sum
from bench.compressors import PowerSGD, TopK, qsgd, topk
from bench.configured import get_object
from bench.errors import InputError
from bench.kernels import selection
from bench.kernels.noise import Noise
from bench.names import FOLDER, house_names
from bench.recipes import PARTS, changed, load_recipe
from bench.strategies.processes import CompressedDDPStrategy
from bench.strategies.simulated import CompressedStrategy
from bench.tests.found import RECIPES
from bench.wire import bounds, positions


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_has_one_keyword(name: str) -> None:
    """A keyword sets a field of one part; a field that two parts have is rejected with a message that names both."""
    recipe = RECIPES[name]
    owners: dict[str, list[str]] = {}
    for part in PARTS:
        if (value := getattr(recipe, part)) is not None and not (part == "downlink" and value == recipe.compressor):
            for field in fields(value):
                owners.setdefault(field.name, []).append(part)
    for key, parts in owners.items():
        value = getattr(getattr(recipe, parts[0]), key)
        if len(parts) == 1:
            assert changed(recipe, {key: value}) == (recipe, {})
        else:
            with pytest.raises(InputError, match=f"{key}: .*both {parts[0]} .* and {parts[1]}"):
                changed(recipe, {key: value})
    assert changed(recipe, {"timeout": 3}) == (recipe, {"timeout": 3}), "what is none of its settings is left over"


def test_what_is_changed() -> None:
    sasg: Any = RECIPES["sasg"]
    strategy = CompressedStrategy("sasg", aggregator=Sum(), density=0.1, max_age=3)
    assert strategy.algorithm == replace(
        sasg, aggregator=Sum(), compressor=TopK(0.1), rule=replace(sasg.rule, max_age=3)
    )
    powersgd = CompressedStrategy("powersgd", rank=4).algorithm
    assert powersgd.compressor == powersgd.downlink == PowerSGD(4), "a downlink that equals the compressor follows it"
    both = CompressedStrategy("sasg", compressor=TopK(0.5), density=0.25).algorithm
    assert both.compressor == TopK(0.25), "a part, and then its settings"
    assert CompressedDDPStrategy("sparse", density=0.5, find_unused_parameters=True).algorithm.compressor == TopK(0.5)


@pytest.mark.parametrize("kind", [CompressedStrategy, CompressedDDPStrategy])
@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("sasg", {"densty": 0.1}, "densty: 0.1; neither sasg, its parts nor Lightning have it"),
        ("sgd", {"density": 0.1}, "density: 0.1; neither sgd"),
        ("sasg", {"density": 2}, "density: 2"),
        ("sasg", {"units": "bytes"}, "units: 'bytes'"),
        ("sasg", {"density": "a"}, "density: 'a'; float is needed"),
        ("sasg", {"compressor": "topk"}, "compressor: 'topk'; Compressor is needed"),
        ("sasg", {"seed": "a"}, "seed: 'a'; int is needed"),
        ("sasg", {"seed": -1}, "seed: -1; at least 0 is needed"),
        ("sasg", {"adversary": "invert"}, "adversary: 'invert'; Adversary or None is needed"),
        (3, {}, "algorithm: 3; Algorithm is needed"),
    ],
)
def test_what_nothing_has_is_refused(kind: Any, name: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        kind(name, **options)


SHARE = {"low": 0.01, "high": 0.1, "scale": "log"}


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"compressor.share": SHARE}, None),
        ({"optimizer.lr": SHARE, "compressor.share": SHARE, "local_steps.outer_lr": SHARE}, None),
        ({"compressor.shar": SHARE}, "knobs: compressor.shar; a float among the recipe's settings is needed, or opti"),
        ({"compressor": SHARE}, "knobs: compressor; a float"),
        ({"local_steps.apart": SHARE}, "knobs: local_steps.apart; a float"),
        ({"local_steps.num_steps": SHARE}, "knobs: local_steps.num_steps: 1, a whole number; a float"),
        ({"optimizer.typo": SHARE}, "knobs: optimizer.typo; a float among the recipe's settings is needed, or opt"),
        ({"compressor.share": {"low": 0.01, "high": 0.1}}, "knobs: algorithm.compressor.share: .* scale are needed"),
        (0.1, "knobs: 0.1; ranges by the names of settings are needed"),
        (
            {"compressor.share": SHARE, "local_steps.outer_lr": SHARE, "local_steps.outer_momentum": SHARE},
            "knobs: algorithm.compressor.share, .*outer_momentum; at most 2 besides optimizer.lr",
        ),
    ],
)
def test_knobs_are_no_part_of_a_recipe(knobs: Any, told: str | None, tmp_path: Path) -> None:
    """What may be tuned changes no run; bad ones are refused by file and key."""
    file = tmp_path / "mine.yaml"
    described = yaml.safe_load((FOLDER / "sparta.yaml").read_text("utf-8"))
    described["local_steps"]["outer_lr"] = 1  # a float, however it is written
    file.write_text(yaml.safe_dump({**described, "knobs": knobs}))
    if told is None:
        assert load_recipe(file) == load_recipe("sparta")
    else:
        with pytest.raises(InputError, match=f"mine.yaml: {told}"):
            load_recipe(file)


@pytest.mark.parametrize("option", ["ddp_comm_hook", "model_averaging_period"])
def test_what_a_recipe_takes_the_place_of(option: str) -> None:
    options: dict[str, Any] = {option: 3}
    with pytest.raises(InputError, match=f"{option}: 3; recipes compress and average themselves"):
        CompressedDDPStrategy("sgd", **options)


def test_a_name_means_what_ddp_means() -> None:
    """Every recipe averages over workers, except those that vote."""
    for name, recipe in RECIPES.items():
        assert type(recipe.aggregator).__name__ in ("Mean", "MajorityVote", "SignOfMean"), name
    assert house_names() == sorted(RECIPES)


def test_objects_of_configs_are_the_suites_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`models.…` in a config is the suite's; what the suite does not have is looked up in the project."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "models" / "theirs.py").write_text("class Net: pass")
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert get_object("models.mlp.mlp").__module__ == "bench.suite.models.mlp"
    assert get_object("models.theirs.Net").__module__ == "models.theirs"
    monkeypatch.delitem(sys.modules, "models")


def test_changing_counts_fill_no_cache() -> None:
    """A density that changes every round leaves nothing behind."""
    x, noise = torch.randn(1, 2000, generator=torch.Generator().manual_seed(1)), [Noise(0, 0, 0)]
    for k in range(1, 60):
        message = TopK(k / 2000).compress(x, (2000,), noise)
        assert int(message.num_bits) > 0
        message.encode(0)
    for module in (topk, bounds, positions, selection, qsgd):
        for name, kept in vars(module).items():
            if hasattr(kept, "cache_info"):
                assert kept.cache_info().currsize <= 16, f"{module.__name__}.{name}"
