"""Defines a workspace and a report on Weights & Biases: metrics of each algorithm against every cost.

Both group runs by experiment and label, so that the seeds of a label are shown as a mean and a band.
"""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import Report, Runset

from bench.findings.look import LOGARITHMIC, TITLES
from bench.runs.columns import COSTS
from bench.runs.pace import PACE
from bench.runs.targets import TARGET_COLUMNS

METRICS = ("test_accuracy", "train_loss", "suboptimality", "val_loss")
GROUP = wr.Metric("Group")
GAUGES = ("message_bits", "compression_error", "bits_over_bound", "gradient_norm", *PACE)


def workspace(entity: str, project: str, experiment: str | None = None) -> ws.Workspace:
    """The workspace: sections for each metric against every cost, costs at the target, and quantities by round.

    Args:
        entity, project: where it is.
        experiment: the only one whose runs it shows; None for all.
    """
    sections = [
        ws.Section(name=f"{TITLES[metric]} against its costs", panels=_curves(metric), is_open=True)
        for metric in METRICS
    ]
    sections += [
        ws.Section(name="costs at the target", panels=[*_targets(), _tables()], is_open=True),
        ws.Section(name="rounds", panels=[*_plots("round", GAUGES), _skips()], is_open=False),
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"bitbudget: {experiment or 'accuracy against rounds, bits and seconds'}",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="round", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[expr.Metric("group")], filters=f"Tags in {[experiment]}" if experiment else ""
        ),
    )


def report(entity: str, project: str) -> Report:
    """The report: most of the workspace's panels, with text, and the tables that scripts/matrix.py logs."""
    runs = Runset(name="runs", filters="JobType = 'train'", groupby=["group"])
    tables = Runset(name="tables", filters="JobType = 'table'")
    blocks: list[Any] = [wr.TableOfContents()]
    for metric in METRICS:
        blocks += [
            wr.H1(f"{TITLES[metric]} against its costs"),
            wr.P("Lines are means over seeds; bands reach from the lowest seed to the highest."),
            wr.PanelGrid(runsets=[runs], panels=_curves(metric)),
        ]
    blocks += [
        wr.H1("Costs at the target"),
        wr.P("What each run had cost when it first reached its experiment's target."),
        wr.PanelGrid(runsets=[runs], panels=_targets()),
        wr.H1("Tables"),
        wr.P("The tables of experiments, logged by scripts/matrix.py."),
        wr.PanelGrid(runsets=[tables], panels=[_tables()]),
    ]
    return Report(entity=entity, project=project, title="bitbudget", blocks=blocks, width="fluid",
                     description="Accuracy against rounds, bits and seconds, by algorithm.")  # fmt: skip


def _curves(metric: str) -> list[Any]:
    """One panel of the metric for each cost."""
    return [panel for axis in COSTS for panel in _plots(axis, [metric])]


def _plots(axis: str, columns: Sequence[str]) -> list[Any]:
    """One panel for each column against a cost: mean and band over seeds; log scale for bits, seconds
    and suboptimality."""
    return [
        wr.LinePlot(
            title=f"{TITLES[column]} against {TITLES[axis]}", x=axis, y=[column], title_x=TITLES[axis],
            title_y=TITLES[column], log_x=axis in LOGARITHMIC, log_y=column in LOGARITHMIC,
            groupby=GROUP, groupby_aggfunc="mean", groupby_rangefunc="minmax", smoothing_factor=0, max_runs_to_show=100,
        )
        for column in columns
    ]  # fmt: skip


def _targets() -> list[Any]:
    """One panel for each cost at the target, with a bar per group."""
    return [
        wr.BarPlot(
            title=f"{TITLES[column]} at the target", metrics=[wr.SummaryMetric(f"target/{column}")], groupby=GROUP,
            groupby_aggfunc="mean", groupby_rangefunc="minmax", max_bars_to_show=30,
        )
        for column in TARGET_COLUMNS
    ]  # fmt: skip


def _tables() -> Any:
    """The tables that scripts/matrix.py logs, one per experiment."""
    return wr.WeavePanelSummaryTable(table_name="table")


def _skips() -> Any:
    """Rounds skipped, a line per worker."""
    return wr.LinePlot(
        title="rounds skipped, by worker", x="round", metric_regex="skips/worker_.*", max_runs_to_show=100
    )
