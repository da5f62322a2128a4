"""Tables as data, printed as Markdown, LaTeX or CSV.

Numbers over seeds are printed as mean ± standard deviation, with a note if some seeds have no number.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.findings.look import si
from bench.findings.sample import Ratio, Sample, Theirs
from bench.runs.whole import write_whole

Entry = Sample | Ratio | Theirs | float | str | None
"""A number over seeds, a paper's number, a ratio, a name, or None for an empty cell."""


SHRUNK = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"
"""Fits what follows into the column of a paper, if it is wider."""


@dataclass(frozen=True)
class Column:
    """A column. `style`: "name", "count" (1,234), "power" (of ten), "bits" (the same, with SI prefixes on the page),
    "percent", "number", "seconds", "rank" or "factor"."""

    key: str
    title: str
    style: str


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        main: the keys of the columns to show first; all if there are none.
        title: its heading on the page, where it has one of its own.
        rows: entries by the keys of columns; "best" holds the key of the column that is marked in a row.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Entry]]
    main: Sequence[str] = ()
    title: str = ""

    @property
    def short(self) -> "Table":
        """The table with its main columns only."""
        there = {column.key for column in self.columns}
        return self.only([key for key in self.main if key in there]) if self.main else self

    def only(self, keys: Sequence[str]) -> "Table":
        """The table with these columns only.

        Raises:
            InputError: there is no such column.
        """
        by_key = {column.key: column for column in self.columns}
        if missing := [key for key in keys if key not in by_key]:
            raise InputError(f"columns: no {missing[0]}; there is {', '.join(by_key)}")
        return replace(self, columns=[by_key[key] for key in keys], main=())

    def _cells(self, row: Mapping[str, Entry], marks: "_Marks") -> list[str]:
        """The cells of a row as text, the best one marked."""
        texts = {c.key: _text(row.get(c.key), c.style, marks) for c in self.columns}
        return [marks.best.format(text) if row.get("best") == key else text for key, text in texts.items()]

    def text(self, row: Mapping[str, Entry], column: Column) -> str:
        """A cell as plain text, bits with SI prefixes."""
        return _text(row.get(column.key), column.style, _PAGE)

    def number(self, row: Mapping[str, Entry], column: Column) -> float | str | None:
        """The value that a cell is sorted by."""
        cell = row.get(column.key)
        return cell.mean if isinstance(cell, Sample) else cell.value if isinstance(cell, Theirs | Ratio) else cell

    def markdown(self) -> str:
        body = [self._cells(row, _PLAIN) for row in self.rows]
        rule = [":--" if c.style == "name" else "--:" for c in self.columns]
        lines = ["| " + " | ".join(cells) + " |" for cells in ([c.title for c in self.columns], rule, *body)]
        return "\n".join([*lines, "", self.caption]) + "\n"

    def latex(self) -> str:
        """A LaTeX table (booktabs) with its caption, to \\input into a paper."""
        align = "".join("l" if c.style == "name" else "r" for c in self.columns)
        head = " & ".join(_escape(c.title) for c in self.columns)
        body = [" & ".join(self._cells(row, _LATEX)) for row in self.rows]
        lines = ["% needs \\usepackage{booktabs,graphicx}", "\\begin{table}", "\\centering", SHRUNK,
                 f"\\begin{{tabular}}{{{align}}}", "\\toprule", f"{head} \\\\", "\\midrule",
                 *(f"{line} \\\\" for line in body), "\\bottomrule", "\\end{tabular}}",
                 f"\\caption{{{_escape(self.caption)}}}", "\\end{table}"]  # fmt: skip
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """The unrounded `records` as CSV."""
        names, rows = self.records()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([names, *rows])
        return text.getvalue()

    def records(self) -> tuple[list[str], list[list[Any]]]:
        """Names of columns, and rows of plain values; None for an empty cell.

        A number over seeds takes columns for mean, std, n and missed; a paper's number takes further columns for the
        relative difference of ours and for whether it lies outside our interval.
        """
        names: dict[str, None] = {}
        records: list[dict[str, Any]] = [{} for _ in self.rows]
        for column in self.columns:
            for row, record in zip(self.rows, records, strict=True):
                parts = _parts(column.key, row.get(column.key))
                names |= dict.fromkeys(parts)
                record |= parts
        for row, record in zip(self.rows, records, strict=True):
            if "best" in row:
                names |= {"best": None}
                record["best"] = row["best"]
        return list(names), [[record.get(name) for name in names] for record in records]

    def write(self, folder: Path, name: str = "table") -> None:
        """Write <name>.md, <name>.tex and <name>.csv; and <name>_full.*, if these do not have all columns."""
        for stem, table in ((name, self.short), *([(f"{name}_full", self)] if self.main else [])):
            for suffix, text in (("md", table.markdown()), ("tex", table.latex()), ("csv", table.csv())):
                write_whole(folder / f"{stem}.{suffix}", text)


def _parts(key: str, cell: Entry) -> dict[str, Any]:
    """A cell's columns in the CSV file; none for an empty cell."""
    if cell is None:
        return {}
    if isinstance(cell, Sample):
        n = len(cell.values)
        return {f"{key}_mean": cell.mean, f"{key}_std": cell.std, f"{key}_n": n, f"{key}_missed": cell.missed}
    if isinstance(cell, Ratio):
        return {key: cell.value, f"{key}_n": cell.num_seeds}
    if isinstance(cell, Theirs):
        return {key: cell.value, f"{key}_difference": cell.difference, f"{key}_outside": cell.is_outside}
    return {key: cell}


def _escape(text: str) -> str:
    """A text as LaTeX."""
    for plain, latex in (
        ("\\", "\\textbackslash "),
        *((plain, f"\\{plain}") for plain in "%_&#${}"),
        ("~", "\\textasciitilde "),
        ("^", "\\textasciicircum "),
        ("±", "$\\pm$"),
        ("–", "--"),
        ("×", "$\\times$"),
        ("−", "$-$"),
    ):
        text = text.replace(plain, latex)
    return text


@dataclass(frozen=True)
class _Marks:
    plus_minus: str
    power: str  # of ten, with {exponent}
    times: str
    thousands: str
    nothing: str
    best: str
    escape: Callable[[str], str]
    si: bool = False  # bits with SI prefixes instead of powers of ten


_PLAIN = _Marks(" ± ", "e{exponent}", "×", ",", "", "**{}**", lambda text: text.replace("|", "\\|"))
_PAGE = replace(_PLAIN, si=True, escape=str)
_LATEX = _Marks(" $\\pm$ ", "$\\cdot 10^{{{exponent}}}$", "$\\times$", "{,}", "--", "\\textbf{{{}}}", _escape)


def _text(cell: Entry, style: str, marks: _Marks) -> str:
    """A cell as text."""
    if cell is None:
        return marks.nothing
    if isinstance(cell, str):
        return marks.escape(cell)
    if isinstance(cell, Theirs):
        number, difference = _number(cell.value, style, marks, None), cell.difference
        if difference is None:
            return number
        percent = f"{100 * difference:+.1f} %".replace("-", "−")
        flag = ", outside" if cell.is_outside else ""
        return f"{number} ({marks.escape(percent)}{flag})"
    if isinstance(cell, Ratio):
        some = f" ({cell.num_seeds} of {cell.num_runs} seeds)" if cell.num_seeds < cell.num_runs else ""
        return _number(cell.value, style, marks, None) + some
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

    if style == "bits" and marks.si:
        scale, prefix = si(value)
        digits = max(0, 2 - int(f"{value / scale:e}".partition("e")[2]))  # three in all
        inner = joined(f",.{digits}f", scale)
        return (f"({inner})" if std is not None else inner) + f" {prefix}bit"
    if style in ("power", "bits"):
        exponent = int(f"{value:.2e}".partition("e")[2])  # of the rounded number
        inner = joined(".2f", 10**exponent)
        return (f"({inner})" if std is not None else inner) + marks.power.format(exponent=exponent)
    if style == "factor":
        return format(value, ".3g" if value < 999.5 else ",.0f").replace(",", marks.thousands) + marks.times
    return joined({"count": ",.0f", "percent": ".2f", "number": ".4f", "seconds": ",.1f", "rank": ".1f"}[style])
