"""What an experiment is and found, in a sentence each, for the overview of all; and which problem an arm solves."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from bench.findings.experiments import Arm, Experiment
from bench.findings.look import TITLES, amount, shortest
from bench.findings.sample import Ratio
from bench.findings.table import Table
from bench.runs.columns import FALLING


def about(experiment: Experiment, table: Table | None) -> dict[str, Any]:
    """What the overview tells of an experiment: what it trains, how many seeds, and which recipe did best.

    Args:
        experiment: with at least one run.
        table: its table; None if no run is complete.
    """
    config = experiment.arms[0].runs[0].config()
    target = experiment.spec.get("target") or config.get("target")
    swept = {key for arm in experiment.arms for key in arm.settings}
    parts = [
        *_problem(config, swept),
        f"{_span(arm.runs[0].config().get('workers') for arm in experiment.arms)} workers",
    ]
    if batch := (config.get("data") or {}).get("batch_size"):
        parts[-1] += f" × batch {batch}"
    if target:
        below = "below" if target["metric"] in FALLING else "above"
        parts.append(f"until {TITLES[target['metric']]} is {below} {amount(target['metric'], target['value'])}")
    if swept:
        parts.append(f"swept: {', '.join(sorted(swept))}")
    seeds = _span(len(arm.runs) for arm in experiment.arms)
    problems = sorted({problem(arm) for arm in experiment.arms})
    told = {"sentence": ", ".join(parts), "seeds": seeds, "arms": len(experiment.arms), "problems": problems}
    return {**told, **_found(experiment, table)}


def problem(arm: Arm) -> str:
    """What the runs of an arm solve; arms of one problem may be compared across experiments."""
    config = arm.runs[0].config()
    liars = (config.get("adversary") or {}).get("num_byzantine", 0)
    told = [*_problem(config), f"{config.get('workers', '?')} workers", f"{liars} of them Byzantine" if liars else ""]
    return ", ".join(filter(None, told))


def _problem(config: Mapping[str, Any], untold: AbstractSet[str] = frozenset()) -> list[str]:
    """Data, model, objective and split, without the `untold` settings."""
    data, model = config.get("data") or {}, config.get("model") or {}
    objective, split = config.get("objective") or {}, data.get("split") or {}
    own = {"_target_", "split", "batch_size", "seed", "num_samples", "num_features"}
    given = _options(data, own | untold)
    loss = _name(objective.get("loss") or {})
    ridge = f"λ₂ = {shortest(str(objective['ridge']))}" if objective.keys() - untold >= {"ridge"} else ""
    how = "" if _name(split) in ("", "IID") else f"split {_name(split)}{_options(split, {'_target_'})}"
    threads = "shared memory" if config.get("asynchronous") else ""
    return [part for part in (f"{_name(data)}{given}", _name(model), loss, ridge, how, threads) if part]


def _options(config: Mapping[str, Any], untold: AbstractSet[str]) -> str:
    """The options of a part that are plain and not at their default of nothing, in brackets."""
    told = [f"{key}={shortest(str(value))}" for key, value in config.items()
            if key not in untold and isinstance(value, int | float) and value is not False]  # fmt: skip
    return f" ({', '.join(told)})" if told else ""


def _name(part: Mapping[str, Any]) -> str:
    return part.get("_target_", "").rpartition(".")[2]


def _span(values: Any) -> str:
    """One number, or the least and the greatest."""
    found = sorted({value for value in values if value is not None})
    return "?" if not found else str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"


def _found(experiment: Experiment, table: Table | None) -> dict[str, Any]:
    """The best recipe: that which saves most bits both ways at the target, or else has the best final metric, if all
    arms solve one problem."""
    nobody = {"best": None, "saving": None, "final": None}
    if table is None:
        return nobody
    columns = {column.key: column for column in table.columns}
    savings = [(row, row.get("total_bits_saving")) for row in table.rows]
    whole = [(row, s) for row, s in savings if isinstance(s, Ratio) and s.num_seeds == s.num_runs]
    if whole:
        row, saving = max(whole, key=lambda each: each[1].value)
        texts = {key: table.text(row, columns[key]) for key in ("recipe", "final", "total_bits_saving")}
        final = texts["final"] + " %" * (columns["final"].style == "percent")
        return {"best": texts["recipe"], "saving": [texts["total_bits_saving"], saving.value], "final": final}
    metric = (experiment.spec.get("table") or {}).get("metric") or _metric(experiment.complete)
    ended = [(arm, values) for arm in experiment.complete if (values := _ends(arm, metric))]
    if not ended or len({problem(arm) for arm in experiment.complete}) > 1:
        return nobody
    choose = min if metric in FALLING else max
    arm, values = choose(ended, key=lambda each: sum(each[1]) / len(each[1]))
    return {"best": arm.label, "saving": None, "final": amount(metric, sum(values) / len(values))}


def _metric(arms: Sequence[Arm]) -> str:
    return arms[0].runs[0].target()["metric"]


def _ends(arm: Arm, metric: str) -> list[float]:
    """Final values over seeds; none if a seed diverged."""
    summaries = [run.summary() for run in arm.runs]
    return [] if any("diverged" in each for each in summaries) else [each[metric] for each in summaries]
