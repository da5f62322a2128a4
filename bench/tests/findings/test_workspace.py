"""The workspace and the report, as they would be sent to W&B."""

import json
from typing import Any

import pytest

from bench.errors import InputError
from bench.findings.look import LOGARITHMIC
from bench.findings.workspace import METRICS, report, workspace
from bench.runs.columns import COSTS
from bench.runs.targets import TARGET_COLUMNS
from bench.suite.scripts.dashboard import publish
from bench.tests.runs.wandb_server import wandb_server


def panels(tree: Any) -> list[dict[str, Any]]:
    """The configs of all panels in a tree of dicts and lists."""
    if isinstance(tree, list):
        return [found for part in tree for found in panels(part)]
    if not isinstance(tree, dict):
        return []
    own = [{"type": tree["viewType"], **tree["config"]}] if "viewType" in tree and "config" in tree else []
    return own + [found for part in tree.values() for found in panels(part)]


@pytest.mark.parametrize("make", [workspace, report])
def test_every_metric_stands_against_every_cost(make: Any) -> None:
    """Each pair has a panel, grouped by experiment and label, with the mean and the range over seeds."""
    found = panels(json.loads(make("someone", "bitbudget")._to_model().model_dump_json(by_alias=True)))
    lines = [panel for panel in found if panel["type"] == "Run History Line Plot"]
    assert {(panel["xAxis"], *panel["metrics"]) for panel in lines} >= {(x, y) for x in COSTS for y in METRICS}
    for panel in (panel for panel in lines if not panel["metricRegex"]):  # skips have a line per worker
        assert (panel["groupBy"], panel["groupAgg"], panel["groupArea"]) == ("group", "mean", "minmax")
        assert panel["xLogScale"] == (panel["xAxis"] in LOGARITHMIC)
        assert panel["yLogScale"] == (panel["metrics"][0] in LOGARITHMIC)
    assert [panel["type"] for panel in found].count("Weave") == 1  # the tables that scripts/matrix.py logs
    bars = [panel for panel in found if panel["type"] == "Bar Chart"]
    assert [panel["metrics"] for panel in bars] == [[f"summary_metrics.target/{column}"] for column in TARGET_COLUMNS]


def test_runs_are_told_from_tables() -> None:
    shown = json.loads(report("someone", "bitbudget")._to_model().model_dump_json(by_alias=True))
    text = json.dumps(shown)
    assert '"value": "train"' in text
    assert '"value": "table"' in text
    assert text.count('"grouping": [{"section": "run", "name": "group"}]') == len(METRICS) + 1


def test_a_workspace_of_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is saved on the server, and shows runs with the experiment's tag only, which its tables have, too."""
    with wandb_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        publish("someone/bitbudget", ["sasg_mnist", "showdown"])
    for view, experiment in zip(server.views, ("sasg_mnist", "showdown"), strict=True):
        assert view["displayName"] == f"bitbudget: {experiment}"
        (runs,) = json.loads(view["spec"])["section"]["runSets"]
        (filtered,) = runs["filters"]["filters"]
        assert (filtered["key"]["name"], filtered["op"], filtered["value"]) == ("tags", "IN", [experiment])


def test_the_workspace_and_the_report_are_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole, in a project that is made if there is none; what W&B refuses is told in a line."""
    with wandb_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        publish("someone/bitbudget")
        publish("someone/bitbudget")
        assert server.projects == ["bitbudget"]
        views, place = server.views[:2], f"{server.environment['WANDB_BASE_URL']}/someone/bitbudget"
        server.refusing = True
        with pytest.raises(InputError, match="--wandb: someone/bitbudget; W&B refuses: "):
            publish("someone/bitbudget")
    for view, make in zip(views, (workspace, report), strict=True):
        made = make("someone", "bitbudget")._to_model()
        assert [view["entityName"], view["projectName"]] == ["someone", "bitbudget"]
        kinds = [
            [panel["type"] for panel in panels(tree)]
            for tree in (json.loads(view["spec"]), json.loads(made.model_dump_json(by_alias=True)))
        ]
        assert kinds[0] == kinds[1] != []
    urls = [line for line in capsys.readouterr().out.splitlines() if line.startswith(place)]
    assert len(urls) == 4
    assert "/reports/" in urls[1]


def test_a_place_that_is_none_is_told() -> None:
    for place in ("bitbudget", "a/b/c", "/b", "a/"):
        with pytest.raises(InputError, match=f"--wandb: '{place}'; ENTITY/PROJECT is needed"):
            publish(place)
