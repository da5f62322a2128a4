"""A borrowed machine: cells begin if they will be over in time, and what is worth keeping is packed."""

import sys
import tarfile
from pathlib import Path

import pytest

from bench.suite.scripts import gpu
from bench.suite.scripts.trial import Cost

SMALL = ["--device=cpu", "--trial=1", "experiment=quickstart", "matrix.algorithm=[sparse,sgd,sasg]", "matrix.seed=[1]",
         "trainer.max_epochs=1"]  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("left_s", [-1.0, 0.0, 4.0, 9.0, 100.0])
def test_cells_begin_if_they_will_be_over(left_s: float, at_once: int) -> None:
    """None ends late, and each that is left out would have: behind those before it, whichever place it took."""
    seconds, ends = [5.0, 3.0, 4.0, 1.0, 2.0], [0.0] * at_once
    for cost, begins in zip(seconds, gpu.in_time(seconds, left_s, at_once), strict=True):
        place = ends.index(min(ends))
        assert begins == (ends[place] + cost <= left_s)
        ends[place] += cost * begins
    assert max(ends) <= max(left_s, 0)


def test_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["gpu.py", *SMALL, f"results_dir={tmp_path}", *arguments])
        gpu.main()
        return capsys.readouterr().out.splitlines()

    out = tmp_path / "results.tgz"
    lines = told("--minutes=9", f"--out={out}")
    assert any(line.startswith("sgd     joint  32-true ") and "plain steps" in line for line in lines)
    assert [line for line in lines if line.startswith("3 of 3 cells will be over in time")]
    with tarfile.open(out) as archive:
        packed = archive.getnames()
    kept = ("config.yaml", "history.csv", "summary.json", "split.png")
    assert packed == [f"quickstart/{name}/seed=1/{file}" for name in ("sgd", "sasg", "sparse") for file in kept]
    assert told()[-1] == "all cells are complete"


def test_at_the_deadline_cells_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that run are ended and packed without checkpoints; those that wait do not begin, nor what will be late."""
    out, cost = tmp_path / "results.tgz", Cost("joint", 0, 0, 0, 1, 1, 1, busy=0.5, num_bytes=0)
    monkeypatch.setattr(gpu, "tried", lambda cfg: cost)
    monkeypatch.setattr(gpu, "check", lambda device: None)
    monkeypatch.setattr(gpu, "ENDING_S", 0.0)
    options = ["gpu.py", *SMALL, "trainer.max_epochs=5000", f"results_dir={tmp_path}", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", [*options, "--minutes=0"])
    gpu.main()
    assert not any(tmp_path.iterdir()), "nothing fits"
    monkeypatch.setattr(sys, "argv", [*options, "--minutes=0.1"])
    with pytest.raises(SystemExit, match="the time is over"):
        gpu.main()
    with tarfile.open(out) as archive:
        assert {Path(name).name for name in archive.getnames()} <= {"config.yaml", "history.csv", "split.png"}
    assert {path.parent.name for path in tmp_path.glob("quickstart/*/*")} <= {"sgd", "sasg"}


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --device: cuda; there is none here, cpu is allowed\n"
