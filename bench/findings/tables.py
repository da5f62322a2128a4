"""Tables of an experiment: the costs of each recipe next to the paper's, or the effect of a swept setting."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from bench.errors import InputError
from bench.findings.asked import made, refuse
from bench.findings.budgets import budget_table
from bench.findings.captions import absent, num_seeds
from bench.findings.experiments import Arm, Experiment
from bench.findings.look import STYLES, TITLES, amount, shortest
from bench.findings.ranks import ranks
from bench.findings.sample import Ratio, Sample, Theirs
from bench.findings.seconds import seconds_table
from bench.findings.table import Column, Entry, Table
from bench.findings.tuning import Tuned
from bench.findings.view import ViewedRun
from bench.runs.columns import FALLING, Row

FINAL = {
    "test_accuracy": "final accuracy %",
    "test_top5_accuracy": "final top-5 accuracy %",
    "train_loss": "final training loss",
    "suboptimality": "final suboptimality",
    "val_loss": "final validation loss",
    "val_perplexity": "final perplexity",
}
COSTED = ("round", "uploads", "uplink_bits", "uplink_bits_paper", "downlink_bits", "total_bits", "modelled_s")
"""Costs that a table shows."""
MAIN = ("recipe", "rank", "final", "round", "total_bits", "total_bits_saving", "modelled_s")
BESIDE_UPLOADS = (
    "recipe", "final", "uploads", "uploads_theirs", "uploads_logs", "uplink_bits_paper", "uplink_bits_paper_theirs",
    "total_bits_saving",
)  # fmt: skip
"""Its main columns, and those next to a paper that gives uploads."""
NOT_RUN = Sample((), 0, "not run")
"""The final metric of an arm of the grid without a complete run."""


def table(experiment: Experiment) -> Table:
    """Make the table of an experiment: the kind that its file's `table:` asks for, by default costs at the target.

    Raises:
        InputError: the table cannot be made.
    """
    return made("table", experiment.spec.get("table") or {"kind": "costs"}, KINDS, experiment)


def further_tables(experiment: Experiment) -> dict[str, Table]:
    """Make the tables that an experiment's file asks for besides, under `tables:`, by their names there.

    Raises:
        InputError: a table cannot be made, or has the name of the first one's files.
    """
    asked = {name: own for name, own in (experiment.spec.get("tables") or {}).items() if own is not None}
    if taken := {"table", "table_full"} & asked.keys():
        raise InputError(f"tables: {min(taken)}; the file of `table` has this name, another is needed")
    return {name: made(f"tables.{name}", own, FURTHER_KINDS, experiment) for name, own in asked.items()}


def refuse_asked(spec: Mapping[str, Any]) -> None:
    """Check the tables that an experiment's file asks for, as far as can be seen without runs.

    Raises:
        InputError: a kind or an option is unknown, or an option is missing.
    """
    if asked := spec.get("table"):
        refuse("table", asked, KINDS)
    for name, own in (spec.get("tables") or {}).items():
        if own is not None:
            refuse(f"tables.{name}", own, FURTHER_KINDS)


def cost_table(
    experiment: Experiment, at: Literal["target", "end"] = "target", to: str = "sgd", rank: str | None = None
) -> Table:
    """The costs of each recipe, one row each, next to the paper's numbers.

    Args:
        experiment: with at least one complete run.
        at: whether costs are those at the first evaluation that reached the target, or those at the end of the run;
            a target that the view names is meant.
        to: the arm to which savings are factors, where it is there.
        rank: a cost by which arms are ranked, seed by seed, and their rows sorted.

    Raises:
        InputError: `at`, `to` or `rank` has another value; the runs have different targets.
    """
    if experiment.view.target is not None:
        at = "target"
    if at not in ("target", "end"):
        raise InputError(f"table.at: {at!r}; target or end is needed")
    if rank is not None and rank not in COSTED:
        raise InputError(f"table.rank: {rank!r}; one of {', '.join(COSTED)} is needed")
    arms, target = experiment.complete, _target(experiment)
    known = dict.fromkeys([*experiment.grid, *(arm.label for arm in arms)])
    if to != "sgd" and to not in known:
        raise InputError(f"table.to: {to!r}; one of {', '.join(known)} is needed")
    # The paper's numbers hold for the target in the experiment's file only.
    comparable = experiment.view.rounds is None and (at == "end" or experiment.spec.get("target") == target)
    paper, logs = (dict(experiment.spec.get(key) or {}) if comparable else {} for key in ("paper", "logs"))
    if experiment.view.retimes:
        paper.pop("modelled_s", None)
    rounds = experiment.view.rounds
    figures = {arm.label: _stretch(arm.runs, *rounds) if rounds else _figures(arm.runs, at) for arm in arms}
    if rank:
        for label, places in ranks({label: own[rank] for label, own in figures.items() if rank in own}).items():
            figures[label]["rank"] = places
    runs = dict.fromkeys(experiment.grid, ()) | {arm.label: arm.runs for arm in arms}
    rows: list[dict[str, Entry]] = []
    for label in runs:
        own, base = figures.get(label, {"final": NOT_RUN}), figures.get(to)
        # None of them if a run diverged before its first evaluation.
        codes = filter(None, (run.summary().get("downlink") for run in runs[label]))
        row: dict[str, Entry] = {"recipe": label, **own, "downlink": next(codes, None)}
        for column in ("uplink_bits_paper", "uplink_bits", "total_bits"):
            if base and column in own and column in base:
                row[f"{column}_saving"] = Ratio.of(base[column], own[column])
        for given, suffix in ((paper, "theirs"), (logs, "logs")):
            for column, numbers in given.items():
                if column not in ("source", "seeds") and label in numbers:
                    ours = row.get(column)
                    assert not isinstance(ours, str | Theirs)
                    row[f"{column}_{suffix}"] = Theirs(numbers[label], ours)
        rows.append(row)
    if rank:
        rows.sort(key=_place)
    columns = [
        Column("recipe", "recipe", "name"),
        Column("rank", f"rank by {TITLES[rank]}" if rank else "", "rank"),
        Column("final", FINAL[target["metric"]], STYLES.get(target["metric"], "power")),
        Column("round", "rounds", "count"),
        Column("uploads", "uploads", "count"),
        Column("uploads_theirs", "paper's", "count"),
        Column("uploads_logs", "authors' logs", "count"),
        Column("uplink_bits_paper", "uplink bits, paper's count", "bits"),
        Column("uplink_bits_paper_theirs", "paper's", "bits"),
        Column("uplink_bits", "uplink bits on the wire", "bits"),
        Column("downlink_bits", "downlink bits", "bits"),
        Column("downlink", "downlink code", "name"),
        Column("total_bits", "bits both ways", "bits"),
        Column("uplink_bits_paper_saving", "saving, paper's count", "factor"),
        Column("uplink_bits_paper_saving_theirs", "paper's", "factor"),
        Column("uplink_bits_saving", "saving, wire", "factor"),
        Column("total_bits_saving", "saving, both ways", "factor"),
        Column("modelled_s", "modelled s", "seconds"),
        Column("modelled_s_theirs", "paper's", "seconds"),
    ]
    columns = [c for c in columns if any(row.get(c.key) is not None for row in rows)]
    compared = [key for column in paper for key in (column, f"{column}_theirs") if column not in ("source", "seeds")]
    main: list[str] = list(BESIDE_UPLOADS) if "uploads" in paper else list(dict.fromkeys([*MAIN, *compared]))
    if experiment.view.retimes and "modelled_s" not in main:
        main.append("modelled_s")
    reached = f"first {'falling below' if target['metric'] in FALLING else 'exceeding'} a {TITLES[target['metric']]} of"
    when = f"at {reached} {amount(*target.values())}" if at == "target" else "after the last round"
    if rounds:
        when = f"of rounds {rounds[0]:,} to {rounds[1]:,}"
    caption = f"{experiment.name}: cost {when}; mean ± standard deviation over n = {num_seeds(arms)} seeds."
    if experiment.view.retimes:
        caption += f" Seconds: {experiment.view.told}."
    silent = [arm.label for arm in arms if "modelled_s" not in figures[arm.label]]
    if silent and experiment.view.retimes:
        caption += f" Unknown for {', '.join(silent)}: not recorded, or this network does not carry their messages."
    elif 0 < len(silent) < len(arms):
        caption += f" Seconds of {', '.join(silent)} are unknown: begun by a version that did not record them whole."
    if to in figures and any(column.key.endswith("_saving") for column in columns):
        caption += f" Savings are factors to {to}; both ways adds the downlink."
        if _any_missed(figures.values()):
            caption += " They compare the seeds that both have."
    if "source" in paper:
        caption += f" Paper: {paper['source']}; in brackets what ours differs by"
        flagged = any(isinstance(cell, Theirs) and cell.is_outside for row in rows for cell in row.values())
        caption += ", outside: theirs lies outside our 95 % interval (Student's t)." if flagged else "."
    if logs:
        caption += f" Authors' logs: {logs['source']}, mean over seeds {', '.join(map(str, logs['seeds']))}."
    return Table(caption + absent(experiment), columns, rows, main)


def sweep_table(experiment: Experiment, across: str, metric: str = "test_accuracy", best: bool = False) -> Table:
    """A metric at the end of the runs: one row per recipe, one column per value of a swept setting.

    Args:
        experiment: with at least one complete run.
        across: the setting's name as in labels, the last part of its key: "lr" in "sgd,lr=0.1".
        metric: a column of the history. Accuracies are shown in percent.
        best: whether to mark each row's best value, among those at which no seed diverged.
    """
    if experiment.view.rounds is not None:
        raise InputError("rounds: this experiment's table shows final values; one of costs takes a stretch")
    rows: dict[str, dict[str, Entry]] = {}
    percent, num_held_out = metric.endswith("accuracy"), set[int]()
    arms = experiment.complete

    def told(arm: Arm) -> str:
        others = (f"{key}={shortest(setting)}" for key, setting in arm.settings.items() if key != across)
        return " ".join([arm.name, *others])

    for arm in arms:
        value, where = arm.settings[across], told(arm)
        final = [s[metric] for s in (run.summary() for run in arm.runs) if "diverged" not in s]
        figure = Sample(tuple(100 * v if percent else v for v in final), len(arm.runs), "diverged")
        rows.setdefault(where, {"recipe": where})[f"{across}={value}"] = figure
        num_held_out |= {run.config().get("data", {}).get("num_held_out", 0) for run in arm.runs}
    keys = {key: float(key.partition("=")[2]) for row in rows.values() for key in row if key != "recipe"}
    style = "percent" if percent else "power" if metric == "suboptimality" else "number"
    columns = [Column(key, f"{across} {keys[key]:g}", style) for key in sorted(keys, key=keys.__getitem__)]
    for arm in Tuned(across, metric).best(arms) if best else ():
        row, key = rows[told(arm)], f"{across}={arm.settings[across]}"
        if isinstance(cell := row[key], Sample) and not cell.missed:
            row["best"] = key
    caption = (
        f"{experiment.name}: {metric} after the last round{', %' if percent else ''}; mean ± standard deviation over"
        f" n = {num_seeds(arms)} seeds."
    )
    if best:
        caption += f" Bold: the best of each row{' at which no seed diverged' * _any_missed(rows.values())}."
    if num_held_out - {0}:
        caption += f" Evaluated on {max(num_held_out):,} training images held out, not on the test set."
    return Table(caption, [Column("recipe", "recipe", "name"), *columns], list(rows.values()))


def _place(row: Mapping[str, Entry]) -> float:
    place = row.get("rank")
    return place.mean if isinstance(place, Sample) and place.mean is not None else float("inf")


def _any_missed(rows: Iterable[Mapping[str, Entry]]) -> bool:
    """Whether a seed is missing from a sample."""
    return any(isinstance(cell, Sample) and cell.missed for row in rows for cell in row.values())


def _target(experiment: Experiment) -> dict[str, Any]:
    """The target (metric and value) that all runs share.

    Raises:
        InputError: the runs have different targets.
    """
    targets = [run.target() for arm in experiment.complete for run in arm.runs]
    told = [{"metric": target["metric"], "value": target["value"]} for target in targets]
    if other := [target for target in told if target != told[0]]:
        both = f"{told[0]} and {other[0]} in {experiment.folder}"
        raise InputError(f"target: {both}; scripts/tables.py --target VALUE shows one for all")
    return told[0]


def _stretch(runs: Sequence[ViewedRun], first: int, last: int) -> dict[str, Sample]:
    """The costs between two evaluations, over the runs of a recipe, and the final metric.

    Raises:
        InputError: a run has no such evaluation.
    """
    figures, ends = {"final": _figures(runs, "end")["final"]}, list[tuple[Row, Row]]()
    seeds = tuple(run.path.name for run in runs)
    for run in runs:
        by_round: dict[int, Row] = {0: dict.fromkeys(COSTED, 0), **{row["round"]: row for row in run.history()}}
        if missing := {first, last} - by_round.keys():
            raise InputError(f"rounds: {min(missing)}; {run.path} was not evaluated then")
        ends.append((by_round[first], by_round[last]))
    for column in COSTED:
        if all(row[column] is not None for pair in ends for row in pair):
            figures[column] = Sample(tuple(b[column] - a[column] for a, b in ends), len(runs), seeds=seeds)
    return figures


def _figures(runs: Sequence[ViewedRun], at: Literal["target", "end"]) -> dict[str, Sample]:
    """The final metric, and each cost at the target or at the end, over the runs of a recipe."""
    summaries, rows, seeds = [run.summary() for run in runs], [], []
    for run, summary in zip(runs, summaries, strict=True):
        round = run.target()["round"] if at == "target" else None if "diverged" in summary else summary["round"]
        found = [row for row in run.history() if row["round"] == round]
        rows += found
        seeds += [run.path.name] * len(found)
    metric = runs[0].target()["metric"]
    unit = 100 if metric.endswith("accuracy") else 1
    ends = tuple(unit * s[metric] for s in summaries if "diverged" not in s)
    figures = {"final": Sample(ends, len(runs), "diverged")}
    for column in COSTED:
        if all(row[column] is not None for row in rows):  # runs with world=threads send no messages
            fate = "missed" if at == "target" else "diverged"
            figures[column] = Sample(tuple(row[column] for row in rows), len(runs), fate, tuple(seeds))
    return figures


KINDS = {"costs": cost_table, "sweep": sweep_table}
FURTHER_KINDS = {"budgets": budget_table, "seconds": seconds_table}
"""Kinds of an experiment's `table:`, and of its `tables:`."""
