"""The GPT reads no later character, and trains under every engine, in both worlds, whatever the recipe."""

import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning import Trainer
from torch.utils.data import TensorDataset

import bench
from bench.errors import InputError
from bench.laws.toys import QUIET, flat, loader, train
from bench.laws.worlds import forked_once
from bench.runs.module import LanguageModel
from bench.suite.datamodules.shakespeare import Passages, Shakespeare
from bench.suite.models.gpt import GPT
from bench.suite.scripts.train import train as run
from bench.tests.configs import composed
from bench.tests.found import RECIPES

M = 2


class Adaptive(LanguageModel):
    validation_step: Any = lightning.LightningModule.validation_step  # these fits do not evaluate

    def __init__(self) -> None:
        super().__init__(GPT(13, 8, 12, 2, 2), lambda parameters: torch.optim.AdamW(parameters, lr=0.01))


def text() -> TensorDataset:
    passages = torch.randint(13, (160, 9), generator=torch.Generator().manual_seed(0))
    return TensorDataset(passages[:, :-1], passages[:, 1:])


def test_it_is_as_large_as_told_and_reads_no_later_character() -> None:
    gpt = GPT()
    assert sum(p.numel() for p in gpt.parameters()) == 1_024_640
    tokens = torch.randint(65, (2, 128), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 100:] = 0
    ours, theirs = gpt(tokens), gpt(changed)
    torch.testing.assert_close(ours[:, :100], theirs[:, :100])
    assert not torch.allclose(ours[:, 100:], theirs[:, 100:])


@pytest.mark.parametrize("name", ["sgd", "sasg", "powersgd", "demo", "diloco", "sparta"])
def test_every_engine_gives_its_gradients(name: str) -> None:
    losses = []
    for engine in ("loop", "joint", "vmap"):
        result = train(RECIPES[name], Adaptive, text(), M, rounds=4, engine=engine)
        losses.append(float(result.strategy.last_report.loss.mean()))
    assert max(losses) - min(losses) < 1e-3


def _real(rank: int, folder: Path) -> None:
    for name in ("sasg", "sparseloco"):
        lightning.seed_everything(3, verbose=False)
        module = Adaptive()
        trainer = Trainer(strategy=bench.CompressedDDPStrategy(RECIPES[name]), devices=M, **{**QUIET, "max_steps": 12})
        trainer.fit(module, loader(text(), M, [rank]))
        torch.save(flat(module), folder / f"{name}-{rank}.pt")


@pytest.mark.parametrize("name", ["sasg", "sparseloco"])
def test_simulated_equals_real(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = forked_once(tmp_path_factory, "gpt", M, _real)
    simulated = train(RECIPES[name], Adaptive, text(), M, rounds=12)
    for rank in range(M):
        assert torch.equal(torch.load(folder / f"{name}-{rank}.pt"), simulated.weights)


def test_a_run_tells_loss_and_perplexity(tmp_path: Path, data_dir: Path) -> None:
    shown = ["data=shakespeare", "model=gpt", "model.width=8", "model.num_layers=1", "objective=language",
             "optimizer=adamw", "data.context=16", "workers=2", "trainer.max_epochs=-1", "+trainer.max_steps=4",
             "trainer.val_check_interval=2", "target.metric=val_loss", "target.value=4", "logger=csv",
             f"data_dir={data_dir}", f"results_dir={tmp_path}", "name=language"]  # fmt: skip
    run(composed(shown), shown)
    (history,) = tmp_path.glob("language/sasg/seed=1/history.csv")
    header, *rows = (line.split(",") for line in history.read_text("utf-8").splitlines())
    for row in (dict(zip(header, row, strict=True)) for row in rows):
        assert math.isclose(float(row["val_perplexity"]), math.exp(float(row["val_loss"])), rel_tol=1e-5)
        assert 3 < float(row["val_loss"]) < 5


def test_passages_are_the_text() -> None:
    passages = Passages(torch.arange(100).numpy(), 9, torch.device("cpu"))
    assert len(passages) == 11
    tokens, following = passages[torch.tensor([[0], [10]])]
    assert tokens.flatten().tolist() == [*range(9), *range(90, 99)]
    assert torch.equal(following, tokens + 1)


def test_what_cannot_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="width: 10; a multiple of num_heads, 4"):
        GPT(width=10)
    with pytest.raises(InputError, match=r"model\.context: 4; the data have 8 in"):
        GPT(context=4)(torch.zeros(1, 8, dtype=torch.long))
    with pytest.raises(InputError, match="context: 0; at least 1"):
        Shakespeare(context=0)
    (tmp_path / "shakespeare.txt").write_text("To be", "utf-8")
    with pytest.raises(InputError, match=r"shakespeare\.txt: not tiny Shakespeare"):
        Shakespeare(str(tmp_path)).load()

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(InputError, match="missing, and the download failed: no network"):
        Shakespeare(str(tmp_path / "none")).prepare_data()
