"""The documentation builds without a warning, needs no other host, and fits a screen and a phone."""

import functools
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest
from mkdocs.__main__ import cli

from bench.names import house_names
from bench.tests.configs import aside
from bench.tests.findings.browser import CHROMIUM, browser

CONFIG = Path(__file__).parents[2] / "docs" / "mkdocs.yml"
OUTPUTS = CONFIG.parent / "outputs"
"""Commands, and what they print. `--rewrite-golden` runs them again, which takes minutes."""

SHORTER = {
    "pay_step": "pay.py model=resnet20 input=3x32x32 bandwidth=10Gbit step_ms=350 overlap=0.7 recipes=signsgd_mv",
    "pay_time": "pay.py experiment=sasg_mnist bandwidth=100Mbit step_ms=3 overlap=0.7",
    "speed": "benchmark.py sgd --rounds 50",
    "speed_parts": "benchmark.py packing",
    "speed_resnet18": "benchmark.py sgd --rounds 50",
    "speed_resnet18_bf16": "benchmark.py sgd --rounds 50 --precision bf16-mixed",
}
"""Commands that print lines of the same kinds."""


def kinds(text: str) -> set[str]:
    """The first word of every line, without digits; but for the first line, which repeats what was asked, and for the
    verdict. Verdicts, and what carries a message soonest, are the machine's."""
    lines = [line for line in text.splitlines()[1:] if line and "pays: " not in line]
    return {re.sub(r"\d+", "0", line).split()[0] for line in lines}


@pytest.mark.parametrize("name", sorted(file.stem for file in OUTPUTS.glob("*.txt")))
def test_outputs_are_their_commands(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(CONFIG.parents[1])
    file = OUTPUTS / f"{name}.txt"
    command, shown = file.read_text("utf-8").split("\n", 1)
    again = request.config.getoption("--rewrite-golden")
    script, *arguments = (command.removeprefix("$ python scripts/") if again else SHORTER[name]).split()
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    import_module(f"bench.suite.scripts.{script.removesuffix('.py')}").main()
    told = capsys.readouterr().out
    if SHORTER[name].startswith("benchmark.py sgd"):
        header, *lines = (line.split() for line in told.splitlines())
        assert header[-1] == "ratio"
        assert all(float(number) > 0 for line in lines for number in line[-3:])
    if again:
        shown = told
        file.write_text(f"{command}\n{told}", "utf-8")
    assert kinds(told) <= kinds(shown)


class Silent(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"

    def build() -> None:
        warnings.simplefilter("default")  # as in a new process
        cli(["build", "--strict", "--quiet", "-f", str(CONFIG), "-d", str(folder)])

    said = tmp_path / "said.txt"
    process = aside(build, said, DISABLE_MKDOCS_2_WARNING="true", NO_MKDOCS_2_WARNING="1")
    process.join()
    assert process.exitcode == 0, said.read_text("utf-8")
    return folder


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_it_is_whole_fits_and_asks_nobody(site: Path, address: str) -> None:
    """In one test, as the build takes long."""
    for name in house_names():
        assert "bits an entry" in (site / "recipes" / name / "index.html").read_text("utf-8")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with browser() as chromium:
        for width in (1280, 390):
            page = chromium.new_page(viewport={"width": width, "height": 900})
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            for path in ("", "use/", "recipes/sasg/", "pay/", "experiments/sasg/", "api/", "own_algorithm/"):
                answer = page.goto(f"{address}/{path}")
                assert answer.ok, path
                overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert page.evaluate(overflow) <= 0, f"{path} at {width}"
            assert all(url.startswith((address, "data:", "blob:")) for url in asked)
            page.close()
