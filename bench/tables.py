"""Tables of an experiment: what each recipe paid to reach the target, ours beside the paper's; or what a setting does.

A `Table` is data; Markdown, LaTeX and CSV are three ways to print it. Mean ± standard deviation run over the seeds
that reached the target, with n; seeds that missed it are said to have.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from scipy.stats import t as student_t

from bench.errors import InputError
from bench.experiments import Arm, Experiment
from bench.results import FALLING, RunFolder, write_whole


@dataclass(frozen=True)
class Sample:
    """A figure over seeds: those that have it, out of `num_runs`; `fate` is what befell the others."""

    values: tuple[float, ...]
    num_runs: int
    fate: str = "missed"

    @property
    def mean(self) -> float | None:
        return mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """With n − 1; None below two values."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def missed(self) -> int:
        return self.num_runs - len(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean lies with 95 % confidence, by Student's t; None below two values."""
        if (std := self.std) is None:
            return None
        half = float(student_t.ppf(0.975, len(self.values) - 1)) * std / math.sqrt(len(self.values))
        return mean(self.values) - half, mean(self.values) + half


@dataclass(frozen=True)
class Theirs:
    """A paper's figure, beside ours."""

    value: float
    ours: "Sample | float | None"

    @property
    def difference(self) -> float | None:
        """Ours less theirs, as a share of theirs; None where we have none."""
        ours = self.ours.mean if isinstance(self.ours, Sample) else self.ours
        return None if ours is None else ours / self.value - 1

    @property
    def is_outside(self) -> bool | None:
        """Whether it lies outside of our 95 % interval; None where we have none."""
        interval = self.ours.interval if isinstance(self.ours, Sample) else None
        return None if interval is None else not interval[0] <= self.value <= interval[1]


FINAL = {
    "test_accuracy": "final accuracy %",
    "test_top5_accuracy": "final top-5 accuracy %",
    "train_loss": "final training loss",
    "suboptimality": "final suboptimality",
}

Cell = Sample | Theirs | float | str | None
"""A figure over seeds, one of the paper's, a ratio, a name, or nothing."""


@dataclass(frozen=True)
class Column:
    """`style`: "name", "count" (1,234), "power" (of ten), "percent", "number", "seconds" or "factor"."""

    key: str
    title: str
    style: str


@dataclass(frozen=True)
class Table:
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Cell]]

    def text(self, row: Mapping[str, Cell], column: Column) -> str:
        """A cell as people read it."""
        return _text(row.get(column.key), column.style, _PLAIN)

    def number(self, row: Mapping[str, Cell], column: Column) -> float | str | None:
        """What a cell is sorted by."""
        cell = row.get(column.key)
        return cell.mean if isinstance(cell, Sample) else cell.value if isinstance(cell, Theirs) else cell

    def markdown(self) -> str:
        body = [[self.text(row, c) for c in self.columns] for row in self.rows]
        rule = [":--" if c.style == "name" else "--:" for c in self.columns]
        lines = ["| " + " | ".join(cells) + " |" for cells in ([c.title for c in self.columns], rule, *body)]
        return "\n".join([*lines, "", self.caption]) + "\n"

    def latex(self) -> str:
        """A booktabs tabular with its caption, to be \\input into a paper."""
        align = "".join("l" if c.style == "name" else "r" for c in self.columns)
        head = " & ".join(_escape(c.title) for c in self.columns)
        body = [" & ".join(_text(row.get(c.key), c.style, _LATEX) for c in self.columns) for row in self.rows]
        lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering", f"\\begin{{tabular}}{{{align}}}",
                 "\\toprule", f"{head} \\\\", "\\midrule", *(f"{line} \\\\" for line in body), "\\bottomrule",
                 "\\end{tabular}", f"\\caption{{{_escape(self.caption)}}}", "\\end{table}"]  # fmt: skip
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Unrounded. A figure over seeds takes columns for mean, std, n and missed, a paper's for how ours differs."""
        names: dict[str, None] = {}
        records: list[dict[str, Any]] = [{} for _ in self.rows]
        for column in self.columns:
            for row, record in zip(self.rows, records, strict=True):
                parts = _parts(column.key, row.get(column.key))
                names |= dict.fromkeys(parts)
                record |= parts
        text = io.StringIO()
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def write(self, folder: Path) -> None:
        """table.md, table.tex and table.csv."""
        for suffix, text in (("md", self.markdown()), ("tex", self.latex()), ("csv", self.csv())):
            write_whole(folder / f"table.{suffix}", text)


def table(experiment: Experiment) -> Table:
    """The table of an experiment: of the kind that its file's `table:` asks for, else of costs at the target.

    Raises:
        InputError: no such kind of table.
    """
    kinds = {"costs": cost_table, "sweep": sweep_table}
    options = dict(experiment.spec.get("table") or {"kind": "costs"})
    if (kind := options.pop("kind", None)) not in kinds:
        raise InputError(f"table.kind: {kind!r}; one of {', '.join(kinds)} is needed")
    return kinds[kind](experiment, **options)


def cost_table(experiment: Experiment, at: Literal["target", "end"] = "target") -> Table:
    """What each recipe paid, a row each, beside what the paper says it did.

    Args:
        experiment: with one complete run at least.
        at: the first evaluation that reached the target, or the last one.
    """
    arms, paper = experiment.complete, experiment.spec.get("paper") or {}
    figures = {arm.label: _figures(arm.runs, at) for arm in arms}
    rows: list[dict[str, Cell]] = []
    for arm in arms:
        own, base = figures[arm.label], figures.get("sgd")
        row: dict[str, Cell] = {"recipe": arm.label, **own, "downlink": arm.runs[0].summary()["downlink"]}
        for column in ("uplink_bits_paper", "uplink_bits", "total_bits"):
            if base and column in own and column in base:
                ours, dense = own[column].mean, base[column].mean
                row[f"{column}_saving"] = dense / ours if ours and dense else None
        for column, numbers in paper.items():
            if column != "source" and arm.label in numbers:
                ours = row.get(column)
                assert not isinstance(ours, str | Theirs)
                row[f"{column}_theirs"] = Theirs(numbers[arm.label], ours)
        rows.append(row)
    target = arms[0].runs[0].summary()["target"]
    columns = [
        Column("recipe", "recipe", "name"),
        Column("final", FINAL[target["metric"]], "percent" if target["metric"].endswith("accuracy") else "power"),
        Column("round", "rounds", "count"),
        Column("uploads", "uploads", "count"),
        Column("uploads_theirs", "paper's", "count"),
        Column("uplink_bits_paper", "uplink bits, paper's count", "power"),
        Column("uplink_bits_paper_theirs", "paper's", "power"),
        Column("uplink_bits", "uplink bits on the wire", "power"),
        Column("downlink_bits", "downlink bits", "power"),
        Column("downlink", "downlink code", "name"),
        Column("uplink_bits_paper_saving", "saving, paper's count", "factor"),
        Column("uplink_bits_paper_saving_theirs", "paper's", "factor"),
        Column("uplink_bits_saving", "saving, wire", "factor"),
        Column("total_bits_saving", "saving, both ways", "factor"),
        Column("modelled_s", "modelled s", "seconds"),
        Column("modelled_s_theirs", "paper's", "seconds"),
    ]
    columns = [c for c in columns if any(row.get(c.key) is not None for row in rows)]
    reached = f"first {'falling below' if target['metric'] in FALLING else 'exceeding'} {target['metric']}"
    when = f"at {reached} {target['value']:g}" if at == "target" else "after the last round"
    caption = f"{experiment.name}: cost {when}; mean ± standard deviation over n = {_num_seeds(arms)} seeds."
    if "sgd" in figures:
        caption += " Savings are factors to sgd; both ways adds the downlink."
    if "source" in paper:
        caption += f" Paper: {paper['source']}; in brackets what ours differs by"
        flagged = any(isinstance(cell, Theirs) and cell.is_outside for row in rows for cell in row.values())
        caption += ", outside: the paper's lies outside our 95 % interval (Student's t)." if flagged else "."
    return Table(caption, columns, rows)


def sweep_table(experiment: Experiment, across: str, metric: str = "test_accuracy") -> Table:
    """A metric at the end of each run: a row a recipe, a column a value of one of the matrix's keys.

    Args:
        experiment: with one complete run at least.
        across: the last part of that key, as labels have it: "lr" in "sgd,lr=0.1".
        metric: a column of the history. Accuracies are shown in percent.
    """
    rows: dict[str, dict[str, Cell]] = {}
    percent, num_held_out = metric.endswith("accuracy"), set[int]()
    arms = experiment.complete
    for arm in arms:
        value = arm.settings[across]
        where = " ".join([arm.name, *(f"{key}={setting}" for key, setting in arm.settings.items() if key != across)])
        final = [s[metric] for s in (run.summary() for run in arm.runs) if "diverged" not in s]
        figure = Sample(tuple(100 * v if percent else v for v in final), len(arm.runs), "diverged")
        rows.setdefault(where, {"recipe": where})[value] = figure
        num_held_out |= {run.config().get("data", {}).get("num_held_out", 0) for run in arm.runs}
    values = sorted({key for row in rows.values() for key in row if key != "recipe"}, key=float)
    style = "percent" if percent else "power" if metric == "suboptimality" else "number"
    columns = [Column(value, f"{across} {float(value):g}", style) for value in values]
    caption = (
        f"{experiment.name}: {metric} after the last round{', %' if percent else ''}; mean ± standard deviation over"
        f" n = {_num_seeds(arms)} seeds."
    )
    if num_held_out - {0}:
        caption += f" Evaluated on {max(num_held_out):,} training images held out, not on the test set."
    return Table(caption, [Column("recipe", "recipe", "name"), *columns], list(rows.values()))


def _num_seeds(arms: Sequence[Arm]) -> str:
    """How many runs the recipes have, from the fewest to the most."""
    counts = sorted({len(arm.runs) for arm in arms})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _figures(runs: Sequence[RunFolder], at: Literal["target", "end"]) -> dict[str, Sample]:
    """The metric at the end, and each cost at the target or at the end, over the runs of a recipe."""
    summaries, rows = [run.summary() for run in runs], []
    for run, summary in zip(runs, summaries, strict=True):
        round = summary["target"]["round"] if at == "target" else None if "diverged" in summary else summary["round"]
        rows += [row for row in run.history() if row["round"] == round]
    metric = summaries[0]["target"]["metric"]
    unit = 100 if metric.endswith("accuracy") else 1
    ends = tuple(unit * s[metric] for s in summaries if "diverged" not in s)
    figures = {"final": Sample(ends, len(runs), "diverged")}
    for column in ("round", "uploads", "uplink_bits", "uplink_bits_paper", "downlink_bits", "total_bits", "modelled_s"):
        if all(row[column] is not None for row in rows):  # threads have no messages
            figures[column] = Sample(tuple(row[column] for row in rows), len(runs))
    return figures


def _parts(key: str, cell: Cell) -> dict[str, Any]:
    """A cell's columns in a CSV file; none where there is nothing."""
    if cell is None:
        return {}
    if isinstance(cell, Sample):
        n = len(cell.values)
        return {f"{key}_mean": cell.mean, f"{key}_std": cell.std, f"{key}_n": n, f"{key}_missed": cell.missed}
    if isinstance(cell, Theirs):
        return {key: cell.value, f"{key}_difference": cell.difference, f"{key}_outside": cell.is_outside}
    return {key: cell}


@dataclass(frozen=True)
class _Marks:
    plus_minus: str
    power: str  # of ten, with {exponent}
    times: str
    thousands: str
    nothing: str


_PLAIN = _Marks(" ± ", "e{exponent}", "×", ",", "")
_LATEX = _Marks(" $\\pm$ ", "$\\cdot 10^{{{exponent}}}$", "$\\times$", "{,}", "--")


def _text(cell: Cell, style: str, marks: _Marks) -> str:
    """A cell as people read it: the digits that its spread leaves meaning."""
    if cell is None:
        return marks.nothing
    if isinstance(cell, str):
        return _escape(cell) if marks is _LATEX else cell
    if isinstance(cell, Theirs):
        number, difference = _number(cell.value, style, marks, None), cell.difference
        if difference is None:
            return number
        percent = f"{100 * difference:+.1f} %".replace("-", "−")
        flag = ", outside" if cell.is_outside else ""
        return f"{number} ({_escape(percent) if marks is _LATEX else percent}{flag})"
    if not isinstance(cell, Sample):
        return _number(cell, style, marks, None)
    if cell.mean is None:
        return cell.fate
    text = _number(cell.mean, style, marks, cell.std)
    return f"{text} ({cell.missed} of {cell.num_runs} {cell.fate})" if cell.missed else text


def _number(value: float, style: str, marks: _Marks, std: float | None) -> str:
    def joined(form: str, scale: float = 1) -> str:
        spread = "" if std is None else marks.plus_minus + format(std / scale, form)
        return (format(value / scale, form) + spread).replace(",", marks.thousands)

    if style == "power":
        exponent = math.floor(math.log10(value)) if value else 0
        inner = joined(".2f", 10**exponent)
        return (f"({inner})" if std is not None else inner) + marks.power.format(exponent=exponent)
    if style == "factor":
        return format(value, ".3g" if value < 1000 else ",.0f").replace(",", marks.thousands) + marks.times
    return joined({"count": ",.0f", "percent": ".2f", "number": ".4f", "seconds": ",.1f"}[style])


def _escape(text: str) -> str:
    for plain, latex in (
        ("%", "\\%"),
        ("_", "\\_"),
        ("&", "\\&"),
        ("±", "$\\pm$"),
        ("–", "--"),
        ("×", "$\\times$"),
        ("−", "$-$"),
    ):
        text = text.replace(plain, latex)
    return text
