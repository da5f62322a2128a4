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
from typing import Any

from bench.arms import Arm, complete_runs
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


FINAL = {
    "test_accuracy": "final accuracy %",
    "test_top5_accuracy": "final top-5 accuracy %",
    "train_loss": "final training loss",
    "suboptimality": "final suboptimality",
}

Cell = Sample | float | str | None
"""A figure over seeds, one of the paper's, a name, or nothing."""


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

    def markdown(self) -> str:
        body = [[_text(row.get(c.key), c.style, _PLAIN) for c in self.columns] for row in self.rows]
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
        """Unrounded; a figure over seeds takes four columns: mean, std, n and missed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        spread = {c.key for c in self.columns if any(isinstance(row.get(c.key), Sample) for row in self.rows)}
        parts = ("mean", "std", "n", "missed")
        writer.writerow([name for c in self.columns for name in
                         ([f"{c.key}_{part}" for part in parts] if c.key in spread else [c.key])])  # fmt: skip
        for row in self.rows:
            cells: list[Any] = []
            for c in self.columns:
                cell = row.get(c.key)
                if c.key not in spread:
                    cells.append(cell)
                elif isinstance(cell, Sample):
                    cells += [cell.mean, cell.std, len(cell.values), cell.missed]
                else:
                    cells += [None] * len(parts)
            writer.writerow(cells)
        return text.getvalue()

    def write(self, folder: Path) -> None:
        """table.md, table.tex and table.csv."""
        for suffix, text in (("md", self.markdown()), ("tex", self.latex()), ("csv", self.csv())):
            write_whole(folder / f"table.{suffix}", text)


def target_table(name: str, folder: Path, paper: Mapping[str, Any] | None, order: Sequence[str]) -> Table:
    """The cost of reaching the target, a row a recipe.

    Args:
        name: of the experiment.
        folder: its results, with one complete run at least.
        paper: `source`, and by column of this table {recipe: value}.
        order: of the recipes; others follow by name.
    """
    runs = complete_runs(folder, order)
    figures = {recipe: _figures(folders) for recipe, folders in runs.items()}
    paper = paper or {}
    rows: list[dict[str, Cell]] = []
    for recipe, own in figures.items():
        row: dict[str, Cell] = {"recipe": recipe, **own}
        row |= {f"{column}_theirs": numbers.get(recipe) for column, numbers in paper.items() if column != "source"}
        base = figures.get("sgd", {})
        row["downlink"] = runs[recipe][0].summary()["downlink"]
        for column in ("uplink_bits_paper", "uplink_bits", "both_ways"):
            ours, dense = own[column].mean, base[column].mean if base else None
            row[f"{column}_saving"] = dense / ours if ours and dense else None
        rows.append(row)
    target = next(iter(runs.values()))[0].summary()["target"]
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
        Column("both_ways_saving", "saving, both ways", "factor"),
        Column("modelled_s", "modelled s", "seconds"),
    ]
    columns = [c for c in columns if any(row.get(c.key) is not None for row in rows)]
    caption = (
        f"{name}: cost at first {'falling below' if target['metric'] in FALLING else 'exceeding'} {target['metric']}"
        f" {target['value']:g}; mean ± standard deviation over"
        f" n = {_num_seeds(runs)} seeds."
    )
    if "sgd" in runs:
        caption += " Savings are factors to sgd; both ways adds the downlink."
    if "source" in paper:
        caption += f" Paper: {paper['source']}."
    return Table(caption, columns, rows)


def sweep_table(name: str, folder: Path, order: Sequence[str], across: str, metric: str = "test_accuracy") -> Table:
    """A metric at the end of each run: a row a recipe, a column a value of one of the matrix's keys.

    Args:
        name: of the experiment.
        folder: its results, with one complete run at least.
        order: of the labels; others follow by name.
        across: the last part of that key, as labels have it: "lr" in "sgd,lr=0.1".
        metric: a column of the history. Accuracies are shown in percent.
    """
    rows: dict[str, dict[str, Cell]] = {}
    percent, num_held_out = metric.endswith("accuracy"), set[int]()
    found = complete_runs(folder, order)
    for label, runs in found.items():
        arm = Arm(label, runs)
        value = arm.settings[across]
        where = " ".join([arm.name, *(f"{key}={setting}" for key, setting in arm.settings.items() if key != across)])
        final = [s[metric] for s in (run.summary() for run in runs) if "diverged" not in s]
        figure = Sample(tuple(100 * v if percent else v for v in final), len(runs), "diverged")
        rows.setdefault(where, {"recipe": where})[value] = figure
        num_held_out |= {run.config().get("data", {}).get("num_held_out", 0) for run in runs}
    values = sorted({key for row in rows.values() for key in row if key != "recipe"}, key=float)
    style = "percent" if percent else "power" if metric == "suboptimality" else "number"
    columns = [Column(value, f"{across} {float(value):g}", style) for value in values]
    caption = (
        f"{name}: {metric} after the last round{', %' if percent else ''}; mean ± standard deviation over"
        f" n = {_num_seeds(found)} seeds."
    )
    if num_held_out - {0}:
        caption += f" Evaluated on {max(num_held_out):,} training images held out, not on the test set."
    return Table(caption, [Column("recipe", "recipe", "name"), *columns], list(rows.values()))


def _num_seeds(runs: Mapping[str, Sequence[RunFolder]]) -> str:
    """How many runs the recipes have, from the fewest to the most."""
    counts = sorted({len(folders) for folders in runs.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _figures(folders: Sequence[RunFolder]) -> dict[str, Sample]:
    """Final accuracy, and each cost at first reaching the target, over the runs of a recipe."""
    summaries, num_runs = [folder.summary() for folder in folders], len(folders)
    reached = {folder: summary["target"]["round"] for folder, summary in zip(folders, summaries, strict=True)}
    rows = [row for folder, round in reached.items() for row in folder.history() if row["round"] == round]
    metric = summaries[0]["target"]["metric"]
    unit = 100 if metric.endswith("accuracy") else 1
    figures = {"final": Sample(tuple(unit * s[metric] for s in summaries if "diverged" not in s), num_runs, "diverged")}
    for column in ("round", "uploads", "uplink_bits", "uplink_bits_paper", "downlink_bits", "modelled_s"):
        figures[column] = Sample(tuple(row[column] for row in rows), num_runs)
    figures["both_ways"] = Sample(tuple(row["uplink_bits"] + row["downlink_bits"] for row in rows), num_runs)
    return figures


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
    for plain, latex in (("%", "\\%"), ("_", "\\_"), ("&", "\\&"), ("±", "$\\pm$"), ("–", "--")):
        text = text.replace(plain, latex)
    return text
