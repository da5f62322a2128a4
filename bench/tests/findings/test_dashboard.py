"""The dashboard in a real browser: loading, selecting, toggling, sorting, and the values of history.csv."""

import json
import shutil
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from bench.errors import InputError
from bench.findings.dashboard import Store, page
from bench.findings.dashboard.live import LiveServer
from bench.findings.experiments import Experiment
from bench.findings.look import COLORS
from bench.findings.tables import cost_table
from bench.runs.results import RunFolder
from bench.suite.scripts.dashboard import write
from bench.tests.findings.browser import CHROMIUM, browser, opened

RESULTS = Path(__file__).parents[3] / "results"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of committed experiments, and a run that was interrupted."""
    folder = tmp_path_factory.mktemp("dashboard") / "results"
    for name in ("sasg_mnist", "gspar_sgd", "byzantine_mnist"):
        shutil.copytree(RESULTS / name, folder / name)
    whole, half = (RunFolder(folder / "sasg_mnist" / "sasg" / f"seed={seed}") for seed in (1, 99))
    half.write_config({**whole.config(), "seed": 99, "data": {**whole.config()["data"], "seed": 99}})
    nobody = {"compression_error": None}  # nobody uploaded in that round
    half.write_history([row | nobody for row in whole.history()[:2]] + whole.history()[2:3])
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def url(results: Path) -> str:
    write(results)
    return (results / "dashboard.html").as_uri()


def drawn(window: Any, name: str) -> dict[str, Any]:
    """The coordinates of a line of the chart, from Plotly."""
    code = "name => document.getElementById('curves').data.filter(t => t.name === name).map(t => ({x: t.x, y: t.y}))[0]"
    return window.evaluate(code, name)


def names(window: Any) -> list[str]:
    return window.evaluate("document.getElementById('curves').data.map(t => t.name)")


@needs_chromium
def test_it_shows_what_the_histories_say(chromium: Any, url: str, results: Path) -> None:
    """Every line is the mean over its complete seeds, for every metric against every cost."""
    experiment = Experiment.read("sasg_mnist", results)
    with opened(chromium, f"{url}#experiment=sasg_mnist") as window:
        assert window.title() == "bitbudget: sasg_mnist"
        assert window.inner_text("#status") == "20 runs complete, 1 interrupted"
        costs = window.eval_on_selector_all("#cost option", "options => options.map(o => o.value)")
        assert {"round", "uploads", "uplink_bits", "total_bits", "modelled_s"} <= set(costs)
        for cost in costs:
            for metric in ("test_accuracy", "train_loss"):
                window.select_option("#cost", cost)
                window.select_option("#metric", metric)
                for arm in experiment.complete:
                    rows = list(zip(*[run.history() for run in arm.runs], strict=True))
                    line = drawn(window, arm.label)
                    assert line["x"] == pytest.approx([mean(row[cost] for row in at) for at in rows])
                    assert line["y"] == pytest.approx([mean(row[metric] for row in at) for at in rows])
        window.select_option("#metric", "compression_error")
        assert len(drawn(window, "sasg seed 99, interrupted")["y"]) == 1
        window.select_option("#metric", "train_loss")
        half = RunFolder(results / "sasg_mnist" / "sasg" / "seed=99").history()
        assert drawn(window, "sasg seed 99, interrupted")["y"] == [row["train_loss"] for row in half]


@needs_chromium
def test_picks_toggles_and_sorts_by_keyboard(chromium: Any, url: str, results: Path) -> None:
    with opened(chromium, f"{url}#experiment=sasg_mnist") as window:
        assert {"sgd", "sasg"} <= set(names(window))
        window.focus("#legend button[data-label=sgd]")
        window.keyboard.press("Enter")
        assert "sgd" not in names(window)
        assert window.get_attribute("#legend button[data-label=sgd]", "aria-pressed") == "false"
        assert window.evaluate("document.activeElement.dataset.label") == "sgd"  # keeps the focus
        window.keyboard.press("Enter")
        assert "sgd" in names(window)

        table = cost_table(Experiment.read("sasg_mnist", results))
        (uploads,) = (at for at, column in enumerate(table.columns) if column.key == "uploads")
        window.focus(f"#table th:nth-child({uploads + 1}) button")
        cells = "cells => cells.map(c => c.textContent)"
        for order, sign in (("ascending", 1), ("descending", -1)):
            window.keyboard.press("Enter")
            assert window.get_attribute(f"#table th:nth-child({uploads + 1})", "aria-sort") == order
            shown = window.eval_on_selector_all("#table tbody td:first-child", cells)
            means = {table.text(row, table.columns[0]): table.number(row, table.columns[uploads]) for row in table.rows}
            assert shown == sorted(shown, key=lambda recipe: sign * float(means[recipe]))  # pyright: ignore[reportArgumentType]
        texts = window.eval_on_selector_all(f"#table tbody td:nth-child({uploads + 1})", cells)
        assert sorted(texts) == sorted(table.text(row, table.columns[uploads]) for row in table.rows)
        assert "60,400" in window.inner_text("#table")  # the paper's figure

        window.focus("#log-x")
        assert window.is_checked("#log-x")
        window.keyboard.press("Space")
        assert window.evaluate("document.getElementById('curves').layout.xaxis.type") == "linear"
        window.focus("#experiment")
        window.keyboard.press("Home")
        window.wait_for_function("document.title === 'bitbudget: byzantine_mnist'")
        window.reload()  # the URL stores what is shown
        window.wait_for_function("document.title === 'bitbudget: byzantine_mnist'")


@needs_chromium
def test_exact_values_on_hover(chromium: Any, url: str, results: Path) -> None:
    arm = next(arm for arm in Experiment.read("sasg_mnist", results).complete if arm.label == "sgd")
    rows = [run.history()[6] for run in arm.runs]
    with opened(chromium, f"{url}#experiment=sasg_mnist&cost=uplink_bits") as window:
        window.evaluate("""() => {
            const at = document.getElementById('curves').data.findIndex(t => t.name === 'sgd');
            Plotly.Fx.hover('curves', [{curveNumber: at, pointNumber: 6}]);
        }""")
        said = window.text_content("#curves .hovertext")
        assert f"uplink bits {rows[0]['uplink_bits']:,}" in said
        assert f"test accuracy {mean(row['test_accuracy'] for row in rows):.6g}" in said
        assert f"n = {len(rows)}" in said


@needs_chromium
def test_trade_off_and_skips(chromium: Any, url: str, results: Path) -> None:
    with opened(chromium, f"{url}#experiment=sasg_mnist") as window:
        points = window.evaluate("document.getElementById('trade').data.map(t => [t.name, t.x[0], t.y[0]])")
        table = {row["recipe"]: row for row in cost_table(Experiment.read("sasg_mnist", results)).rows}
        assert {name for name, _, _ in points} == set(table)
        for name, bits, end in points:
            assert bits == pytest.approx(table[name]["total_bits"].mean)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
            assert 100 * end == pytest.approx(table[name]["final"].mean)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        window.select_option("#skipper", "sasg")
        shares = window.evaluate("document.getElementById('skips').data[0].z")
        (sasg,) = (arm for arm in Experiment.read("sasg_mnist", results).complete if arm.label == "sasg")
        histories = [run.history() for run in sasg.runs]
        for worker, row in enumerate(shares):
            assert row[0] == pytest.approx(mean(h[0]["skips"][worker] / h[0]["round"] for h in histories))
            assert sum(row) * histories[0][0]["round"] == pytest.approx(mean(h[-1]["skips"][worker] for h in histories))


@needs_chromium
def test_runs_link_to_their_configs(chromium: Any, url: str, results: Path) -> None:
    with opened(chromium, f"{url}#experiment=sasg_mnist") as window:
        links = window.eval_on_selector_all("#runs a", "links => links.map(a => a.href)")
        assert len(links) == 2 * 21
        files = [Path(unquote(urlparse(link).path)) for link in links]
        assert {file.name for file in files} == {"config.yaml", "history.csv"}
        assert all(file.exists() for file in files)


@needs_chromium
def test_settings_are_picked_where_arms_are_many(chromium: Any, url: str) -> None:
    with opened(chromium, f"{url}#experiment=gspar_sgd") as window:
        few = names(window)
        assert {name.partition(",")[0] for name in few} == {"sgd", "gspar", "unisp"}  # at first no method is left out
        num_arms = len(list((RESULTS / "gspar_sgd").glob("*/seed=1")))
        assert window.inner_text("#picked") == f"{len(few)} of {num_arms} arms"
        window.select_option("select[data-setting=ridge]", "")
        assert len(names(window)) > len(few)
        window.select_option("select[data-setting=factor]", "0.0625")
        assert all("factor=0.0625" in name for name in names(window))
        assert window.evaluate("document.getElementById('curves').layout.yaxis.type") == "log"  # suboptimality


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read(chromium: Any, url: str, width: int, scheme: str) -> None:
    """The page fits its window; contrast to the background is at least 3 for lines and 4.5 for text."""
    with opened(chromium, f"{url}#experiment=sasg_mnist", width, scheme) as window:
        assert window.evaluate("document.documentElement.scrollWidth") <= width
        assert window.evaluate("document.getElementById('curves').getBoundingClientRect().width") <= width
        contrast = """([front, back]) => {
            const numbers = (color) => color.match(/[0-9.]+/g).slice(0, 3).map(Number);
            const light = (color) => luminance(color.startsWith('#') ? parsed(color) : numbers(color));
            const [a, b] = [light(front), light(back)].sort((p, q) => q - p);
            return (a + 0.05) / (b + 0.05);
        }"""
        card = window.evaluate("style('--card')")
        lines = window.evaluate(
            "document.getElementById('curves').data.filter(t => t.line.color).map(t => t.line.color)"
        )
        assert lines
        assert all(window.evaluate(contrast, [color, card]) >= 3 for color in lines)
        for text, ground in product(("--text", "--quiet"), ("--card", "--page")):
            pair = [window.evaluate(f"style('{name}')") for name in (text, ground)]
            assert window.evaluate(contrast, pair) >= 4.5


@needs_chromium
def test_live(chromium: Any, results: Path, tmp_path: Path) -> None:
    """The page starts without runs, follows a run as it progresses, and reconnects to a restarted server."""
    source, folder = results / "sasg_mnist" / "sgd" / "seed=1", tmp_path / "results"
    folder.mkdir()
    server = LiveServer(folder, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        window = chromium.new_page()
        window.goto(f"http://127.0.0.1:{server.server_port}")
        window.wait_for_function("document.getElementById('status').textContent === 'No runs yet.'")
        run, rows = RunFolder(folder / "mine" / "sgd" / "seed=1"), RunFolder(source).history()
        run.write_config(RunFolder(source).config() | {"name": "mine"})
        window.wait_for_function("!document.getElementById('nothing').hidden")  # no evaluation yet
        with run.held():
            for num_rows in (2, 5):
                run.write_history(rows[:num_rows])
                seen = "n => document.getElementById('curves').data?.[0]?.y.length === n"
                window.wait_for_function(seen, arg=num_rows)
            assert window.inner_text("#status") == "0 runs complete, 1 running"
        window.wait_for_function("document.getElementById('status').textContent === '0 runs complete, 1 interrupted'")
        run.write_summary(rows[:5], {"metric": "test_accuracy", "value": 0.9}, "python", downlink="dense")
        window.wait_for_function("document.getElementById('status').textContent === '1 runs complete'")
        answer = window.request.get(f"http://127.0.0.1:{server.server_port}/mine/sgd/seed%3D1/config.yaml")
        assert "name: mine" in answer.text()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    window.wait_for_function("document.getElementById('status').textContent.startsWith('The server does not answer')")
    again = LiveServer(folder, port=server.server_port)
    thread = threading.Thread(target=again.serve_forever)
    thread.start()
    try:
        window.wait_for_function("document.getElementById('status').textContent === '1 runs complete'")
        window.close()
    finally:
        again.shutdown()
        again.server_close()
        thread.join()


def test_the_page_loads_nothing(results: Path) -> None:
    """One file holds markup, style, script and data; `</script>` within the data does not end the script."""
    text = page({"experiments": [{"name": "</script><b>"}]})
    assert "</script><b>" not in text
    assert 'src="' not in text.partition("<script>")[0]


def test_bad_input(tmp_path: Path) -> None:
    """An empty folder is rejected; experiments and runs that cannot be read are named, and hide no others."""
    with pytest.raises(InputError, match=r"results: .* holds no run"):
        write(tmp_path)
    for name, header in (
        ("newer", "round,joules"),
        ("good", "round,uplink_bits,downlink_bits,control_bits,train_loss"),
    ):
        run = RunFolder(tmp_path / name / "sgd" / "seed=1")
        run.write_config({"name": name, "seed": 1, "algorithm": {"name": "sgd"}})
        (run.path / "history.csv").write_text(f"{header}\n1,2{',3' * (header.count(',') - 1)}\n")
    other = RunFolder(tmp_path / "good" / "sgd" / "seed=2")
    other.write_config({"name": "good", "seed": 2, "algorithm": {"name": "sgd"}})
    (other.path / "summary.json").write_text("[1]")
    data = Store(tmp_path).data()
    assert [experiment["name"] for experiment in data["experiments"]] == ["good"]
    assert [run["seed"] for run in data["experiments"][0]["arms"][0]["runs"]] == [1], "a damaged run hides no other"
    assert f"{other.path / 'summary.json'}: damaged" in data["problems"][0]
    assert "unknown column joules" in data["problems"][1]
    assert data["experiments"][0]["arms"][0]["runs"][0]["status"] == "interrupted"
    assert data["experiments"][0]["arms"][0]["color"] == COLORS["sgd"]
    json.dumps(data, allow_nan=False)
