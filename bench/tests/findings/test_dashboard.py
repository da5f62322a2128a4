"""The dashboard in a real browser: loading, selecting, toggling, sorting, and the values of history.csv."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
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
from bench.findings.tables import cost_table
from bench.findings.tuning import Tuned
from bench.findings.view import View
from bench.runs.results import RunFolder
from bench.suite.scripts.dashboard import write
from bench.tests.findings.browser import CHROMIUM, browser, opened
from bench.tests.findings.test_look import VISIONS, near

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


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of all committed experiments."""
    file = tmp_path_factory.mktemp("everything") / "dashboard.html"
    file.write_text(page(Store(RESULTS).data()), "utf-8")
    return file.as_uri()


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
        assert window.eval_on_selector_all("#table thead button", "all => all.map(b => b.dataset.column)") == list(
            table.short.columns[at].key for at in range(len(table.short.columns))
        )
        window.check("#wide")  # all columns
        window.focus(f"#table th:nth-child({uploads + 1}) button")
        cells = "cells => cells.map(c => c.textContent)"
        for order, sign in (("ascending", 1), ("descending", -1)):
            window.keyboard.press("Enter")
            assert window.get_attribute(f"#table th:nth-child({uploads + 1})", "aria-sort") == order
            shown = window.eval_on_selector_all("#table tbody th", cells)
            assert len(shown) == len(table.rows)
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
        window.wait_for_function("document.title === 'bitbudget: experiments'")
        window.keyboard.press("ArrowDown")
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
        gigabits = rows[0]["uplink_bits"] / 1e9
        assert f"uplink bits {gigabits:.4g} Gbit ({gigabits / 8:.4g} GB)" in said
        assert f"test accuracy {100 * mean(row['test_accuracy'] for row in rows):.4g} %" in said
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
        bars = window.evaluate("document.getElementById('trade').data.find(t => t.name === 'sasg').error_y.array[0]")
        assert 100 * bars == pytest.approx(table["sasg"]["final"].std)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
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
def test_a_tuned_grid_opens_with_its_best(chromium: Any, url: str, results: Path) -> None:
    """Each method at the best rate of its problem, named by the settings that differ; the grid marks the same."""
    experiment = Experiment.read("gspar_sgd", results)
    tuned = Tuned.asked(experiment.spec)
    assert tuned is not None
    best = {arm.label for arm in tuned.best(experiment.complete)}
    with opened(chromium, f"{url}#experiment=gspar_sgd") as window:
        labels = window.eval_on_selector_all("#legend button", "all => all.map(b => b.dataset.label)")
        few = names(window)
        assert {name.partition(",")[0] for name in few} == {"sgd", "gspar", "unisp"}  # no method is left out
        assert len(labels) == len(few) == 3
        assert set(labels) <= best
        assert all(name.count("=") == 1 and "lr=" in name for name in few)  # of one problem, at other rates
        assert window.inner_text("#picked") == f"3 of {len(experiment.arms)} arms"
        window.select_option("select[data-setting=ridge]", "")
        window.select_option("select[data-setting=factor]", "")
        labels = window.eval_on_selector_all("#legend button", "all => all.map(b => b.dataset.label)")
        assert set(labels) == best
        stars = window.evaluate(
            "document.getElementById('grid').data.filter(t => t.name.endsWith(': best')).map(t => t.y[0])"
        )
        ends = [arm.runs[0].summary()["suboptimality"] for arm in experiment.complete if arm.label in best]
        assert sorted(stars) == pytest.approx(sorted(ends))
        window.select_option("select[data-setting=lr]", "")
        window.select_option("select[data-setting=factor]", "1/16")
        assert len(names(window)) == len(experiment.arms) / 3
        assert not any("factor" in name for name in names(window))
        assert all("ridge=1/1" in name for name in names(window))
        assert window.evaluate("document.getElementById('curves').layout.yaxis.type") == "log"  # suboptimality


LOOKS = """id => document.getElementById(id).data
    .filter(t => !/ (band|seed .*)$|: (best|diverged)$/.test(t.name) && t.name !== 'Pareto front')
    .map(t => [t.marker.color, t.mode.includes('lines') && t.line.dash, t.mode.includes('markers') && t.marker.symbol])
"""


ARMS = """name => [data.loaded[name].arms.filter(arm => arm.runs.some(run => run.status === 'complete')).length,
    [...new Set(data.loaded[name].arms.flatMap(arm => Object.keys(arm.settings)))]]"""


@needs_chromium
def test_no_two_arms_look_alike(chromium: Any, everything: str) -> None:
    """In every experiment, as it opens and with all of its arms shown, and across experiments, as drawn: colour, dash
    and marker."""
    with opened(chromium, everything) as window:
        for experiment in window.evaluate("data.experiments.map(e => e.name)"):
            ended, settings = window.evaluate(ARMS, experiment)
            for given in ("", "".join(f"&set.{key}=" for key in settings)):
                window.evaluate(f"location.hash = 'experiment={experiment}{given}'")
                window.wait_for_function(
                    f"state.experiment?.name === '{experiment}' && location.hash.endsWith('{given}')"
                )
                drawn_looks = [tuple(look) for look in window.evaluate(LOOKS, "curves")]
                assert len({*drawn_looks}) == len(drawn_looks) > 0, experiment
                assert not given or len(drawn_looks) == ended, experiment
                named = names(window)
                assert len({*named}) == len(named), experiment
                for chart in ("trade", "grid"):
                    looks = map(tuple, window.evaluate(LOOKS, chart) if window.is_visible(f"#{chart}") else [])
                    assert len({*(found := list(looks))}) == len(found), (experiment, chart)
        for problem in window.evaluate("location.hash = '', problemsShared().map(([each]) => each)"):
            window.evaluate("problem => { location.hash = new URLSearchParams({ problem, recipe: 'all' }); }", problem)
            window.wait_for_function("problem => state.problem === problem", arg=problem)
            found = [tuple(look) for look in window.evaluate(LOOKS, "leaders")]
            assert len({*found}) == len(found) > 1, problem


@needs_chromium
def test_the_front_is_that_which_no_other_beats(chromium: Any, everything: str) -> None:
    with opened(chromium, f"{everything}#experiment=laq_logistic") as window:
        drawn_points = window.evaluate("document.getElementById('trade').data.map(t => [t.name, t.x, t.y])")
        (front,) = (list(zip(x, y, strict=True)) for name, x, y in drawn_points if name == "Pareto front")
        points = {(x[0], y[0]) for name, x, y in drawn_points if name != "Pareto front"}
        beaten = {p for p, q in product(points, points) if p != q and q[0] <= p[0] and q[1] <= p[1]}
        assert front == sorted(points - beaten)
        assert 1 < len(front) < len(points)


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_as_drawn_are_told_apart(chromium: Any, everything: str, scheme: str) -> None:
    """By each of four kinds of sight, those of one experiment; and they stand out from the card."""
    with opened(chromium, everything, scheme=scheme) as window:
        for experiment in ("sasg_mnist", "resnet20_cifar10", "signs_mnist_iid", "gspar_qsgd", "between_rounds"):
            window.evaluate(f"location.hash = 'experiment={experiment}'")
            window.wait_for_function(f"state.experiment?.name === '{experiment}'")
            colors = {look[0] for look in window.evaluate(LOOKS, "curves")}
            assert len(colors) > 2
            for vision in VISIONS:
                assert near({color: color for color in colors}, vision) == set(), experiment


BITS_AT = """([label, aim]) => data.loaded.sasg_mnist.arms.find((arm) => arm.label === label).runs
    .map((run) => run.history.total_bits[reachedAt(run, aim)])"""


@needs_chromium
def test_the_overview_tells_what_there_is(chromium: Any, everything: str) -> None:
    """A sentence and the best recipe of every experiment, a search, and the sgd of one problem in one chart."""
    with opened(chromium, everything) as window:
        rows = window.eval_on_selector_all(
            "#experiments tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
        )
        found = {row[0]: row[1:] for row in rows}
        assert set(found) == {file.name for file in RESULTS.iterdir() if any(file.glob("*/*/config.yaml"))}
        table = cost_table(Experiment.read("sasg_mnist", RESULTS))
        (sasg,) = (row for row in table.rows if row["recipe"] == "sasg")
        (saving,) = (column for column in table.columns if column.key == "total_bits_saving")
        assert found["sasg_mnist"][0] == "MNIST, mlp, 10 workers × batch 10, until test accuracy is above 98 %"
        assert found["sasg_mnist"][3:5] == ["sasg", table.text(sasg, saving)]
        window.fill("#like", "sasg mnist")
        assert all(
            "MNIST" in text
            for text in window.eval_on_selector_all("#experiments td.sentence", "c => c.map(e => e.textContent)")
        )
        window.select_option("#recipe", "sgd")
        drawn_names = window.evaluate("document.getElementById('leaders').data.map(t => t.name)")
        assert {"sasg_mnist: sgd", "beyond_mnist: sgd", "between_rounds: sgd"} <= set(drawn_names)
        board = window.inner_text("#leaders-table")
        both_ways = sasg["total_bits"].mean  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        assert window.evaluate("bits => amount('total_bits', bits)", both_ways) in board
        for row in cost_table(Experiment.read("sasg_mnist", RESULTS, View(target=0.97))).rows:  # any target
            bits = window.evaluate(BITS_AT, [row["recipe"], {"metric": "test_accuracy", "value": 0.97}])
            assert bits == pytest.approx(row["total_bits"].values)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        window.click("#experiments a")
        window.wait_for_function("!document.getElementById('shown').hidden")
        window.click("h1 a")
        window.wait_for_function("!document.getElementById('overview').hidden")
        window.evaluate("location.hash = 'experiment=nonsense'")
        window.wait_for_function("!document.getElementById('unknown').hidden")
        assert "nonsense" in window.inner_text("#unknown")


@needs_chromium
def test_choices_and_zoom_are_in_the_link(chromium: Any, url: str) -> None:
    with opened(chromium, f"{url}#experiment=sasg_mnist&cost=round") as window:
        window.evaluate("Plotly.relayout('curves', {'xaxis.range': [1000, 5000], 'yaxis.range': [0.95, 0.99]})")
        window.check("#seeds")
        assert sum(" seed " in name for name in names(window)) == 21
        window.click("#legend button[data-label=sasg]", modifiers=["Shift"])
        assert {name.split()[0] for name in names(window)} == {"sasg"}
        window.fill("#runs-like", "sasg seed 1")
        window.select_option("#net-link", "ring")
        window.fill("#net-bandwidth", "10")
        link = window.url
    with opened(chromium, link) as window:
        assert window.evaluate("document.getElementById('curves').layout.xaxis.range") == [1000, 5000]
        assert window.evaluate("document.getElementById('curves').layout.yaxis.range") == [0.95, 0.99]
        assert {name.split()[0] for name in names(window)} == {"sasg"}
        assert window.is_checked("#seeds")
        assert window.input_value("#net-link") == "ring"
        assert window.inner_text("#net-bandwidth-told") == "10 Gbit/s"
        assert "ring" in window.inner_text("#network-table")
        assert window.inner_text("#runs-told") == "2 of 21 runs"  # of seeds 1 and 19
        window.click("#curves + .tools button.whole")
        assert window.evaluate("document.getElementById('curves').layout.xaxis.range[1]") > 11000


RANGES = """id => {
    const { xaxis, yaxis } = document.getElementById(id)._fullLayout;
    return [...xaxis.range, ...yaxis.range];
}"""


@needs_chromium
def test_every_chart_has_its_zoom_in_the_link(chromium: Any, everything: str) -> None:
    """As dragged with the mouse; other choices on the page leave it; a button shows the whole range again."""
    charts = {"trade": "experiment=sasg_mnist", "grid": "experiment=gspar_sgd", "leaders": "against=round"}
    with opened(chromium, everything) as window:
        for chart, place in charts.items():
            window.evaluate("place => { location.hash = place; }", place)
            window.wait_for_function("id => document.getElementById(id)._fullLayout?.width > 0", arg=chart)
            whole = window.evaluate(RANGES, chart)
            area = window.locator(f"#{chart} .nsewdrag").first
            area.scroll_into_view_if_needed()
            box = area.bounding_box()
            window.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
            window.mouse.down()
            window.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.8 * box["height"], steps=3)
            window.mouse.up()
            window.wait_for_function("id => location.hash.includes(`zoom.${id}`)", arg=chart)
            seen = window.evaluate(RANGES, chart)
            sizes = [abs(high - low) for low, high in (whole[:2], whole[2:], seen[:2], seen[2:])]
            assert sizes[2:] == pytest.approx([0.4 * sizes[0], 0.6 * sizes[1]], rel=0.1)
            window.fill("#like" if chart == "leaders" else "#runs-like", "seed")
            window.reload()
            assert window.evaluate(RANGES, chart) == pytest.approx(seen, rel=1e-4, abs=1e-6)
            window.click(f"#{chart} + .tools button.whole")
            assert window.evaluate(RANGES, chart) == pytest.approx(whole)
            assert "zoom" not in window.url
            assert not window.is_visible(f"#{chart} + .tools button.whole")


@needs_chromium
def test_targets_downloads_and_data(chromium: Any, url: str, results: Path) -> None:
    """A line at the target; files hold what is shown; the data of a chart are a table, too."""
    made = cost_table(Experiment.read("sasg_mnist", results))
    with opened(chromium, f"{url}#experiment=sasg_mnist&cost=uplink_bits") as window:
        assert window.evaluate("document.getElementById('curves').layout.shapes[0].y0") == 0.98
        texts = {"Markdown": made.markdown(), "LaTeX": made.latex(), "CSV": made.csv()}
        for kind, text in texts.items():
            with window.expect_download() as found:
                window.click(f"#table-downloads button:text('{kind}')")
            assert Path(found.value.path()).read_text("utf-8") == text
        tools = "#curves + .tools"
        for kind, head in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
            with window.expect_download() as found:
                window.click(f"{tools} button:text('{kind}')")
            assert Path(found.value.path()).read_bytes().startswith(head)
        with window.expect_download() as found:
            window.click(f"{tools} button:text('CSV')")
        lines = Path(found.value.path()).read_text("utf-8").splitlines()
        assert lines[0] == "line,uplink bits,test accuracy,lowest seed,highest seed,n"
        window.click(f"{tools} summary")
        window.wait_for_selector(f"{tools} tbody tr")
        assert window.locator(f"{tools} tbody tr").count() == len(lines) - 1
        cells = window.locator(f"{tools} tbody tr").first.locator("td").all_inner_texts()
        assert [cell.rpartition(" ")[2] for cell in cells[1:5]] == ["Gbit", "%", "%", "%"]
        ticks = window.eval_on_selector_all(
            "#curves .yaxislayer-above .ytick text, #curves .ytick text", "t => t.map(e => e.textContent)"
        )
        assert ticks
        assert all(tick.endswith("%") for tick in ticks)


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read(chromium: Any, url: str, width: int, scheme: str) -> None:
    """The page fits its window; contrast to the background is at least 3 for lines and 4.5 for text."""
    with opened(chromium, f"{url}#experiment=sasg_mnist", width, scheme) as window:
        assert window.evaluate("document.documentElement.scrollWidth") <= width
        assert window.evaluate("document.getElementById('curves').getBoundingClientRect().width") <= width
        contrast = """([front, back]) => {
            const light = (color) => {
                const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                const [r, g, b] = parsed(color).map((v) => linear(v / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const [a, b] = [light(front), light(back)].sort((p, q) => q - p);
            return (a + 0.05) / (b + 0.05);
        }"""
        card = window.evaluate("style('--card')")
        lines = window.evaluate(
            "document.getElementById('curves').data.filter(t => t.line?.color).map(t => t.line.color)"
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
        window.goto(f"http://localhost:{server.server_port}/#experiment=mine")
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
            assert "running" in window.inner_text("#runs")
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


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Any, everything: str, scheme: str) -> None:
    """Neither in the overview nor in an experiment: roles, names, landmarks, contrast of text."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    places = ["#experiment=sasg_mnist", *(("", "#experiment=gspar_sgd") if scheme == "light" else ())]
    for place in places:
        with opened(chromium, everything + place, scheme=scheme) as window:
            for summary in window.locator("summary:visible").all():
                summary.click()
            found = axe.run(window).response["violations"]
            assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found] == []


def test_the_page_loads_nothing(results: Path) -> None:
    """One file holds markup, style, script and data; `</script>` within the data does not end the script."""
    text = page({"experiments": [{"name": "</script><b>"}, {"name": "<!--<script>"}]})
    assert "</script><b>" not in text
    assert "<!--<script>" not in text
    assert 'src="' not in text.partition("<script>")[0]


@needs_chromium
def test_names_are_shown_as_text(chromium: Any, results: Path, tmp_path: Path) -> None:
    for name in ("<!--<script>", "<img src=x onerror=alert(1)>"):
        run = RunFolder(tmp_path / "odd" / name / "seed=1")
        shutil.copytree(results / "sasg_mnist" / "sgd" / "seed=1", run.path)
        run.write_config(run.config() | {"name": "odd"})
    write(tmp_path)
    with opened(chromium, (tmp_path / "dashboard.html").as_uri() + "#experiment=odd") as window:
        assert all("<!--<script>" in window.inner_text(where) for where in ("#legend", "#table", "#runs"))
        assert window.locator("img").count() == 0


def test_the_server_answers_to_this_machine_only(tmp_path: Path) -> None:
    """No other host's name, no file outside the results, no listing; only runs that changed come with their history."""
    for seed in (1, 19):
        shutil.copytree(
            RESULTS / "sasg_mnist" / "sgd" / f"seed={seed}", tmp_path / "results" / "mine" / "sgd" / f"seed={seed}"
        )
        run = RunFolder(tmp_path / "results" / "mine" / "sgd" / f"seed={seed}")
        run.write_config(run.config() | {"name": "mine"})
        (run.path / "summary.json").unlink()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "results" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "results" / "folder").symlink_to(tmp_path)
    server = LiveServer(tmp_path / "results", port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def get(path: str, host: str = "localhost") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", server.server_port)
        connection.request("GET", path, headers={"Host": f"{host}:{server.server_port}"})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    try:
        assert get("/mine/sgd/seed%3D1/config.yaml")[0] == 200
        assert [get("/index.json", host)[0] for host in ("localhost", "127.0.0.1", "elsewhere.example")] == [
            200,
            200,
            421,
        ]
        outside = ("/link.txt", "/folder/secret.txt", "/../secret.txt", "/mine/", "/mine", "/experiment.json?name=none")
        assert [get(path)[0] for path in outside] == [404] * len(outside)
        whole = json.loads(get("/experiment.json?name=mine")[1])
        run = RunFolder(tmp_path / "results" / "mine" / "sgd" / "seed=19")
        run.write_history(run.history()[:-1])
        then = json.loads(get(f"/experiment.json?name=mine&since={whole['change']}&server={server.name}")[1])
        assert [run["history"] is None for run in then["arms"][0]["runs"]] == [True, False]
        shutil.rmtree(tmp_path / "results")  # a folder that goes away
        assert json.loads(get("/index.json")[1])["experiments"] == []
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
    (arm,) = data["loaded"]["good"]["arms"]
    assert [run["seed"] for run in arm["runs"]] == [1], "a damaged run hides no other"
    assert f"{other.path / 'summary.json'}: damaged" in data["problems"][0]
    assert "unknown column joules" in data["problems"][1]
    assert arm["runs"][0]["status"] == "interrupted"
    json.dumps(data, allow_nan=False)
