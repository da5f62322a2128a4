"""LaTeX tables pass a parser everywhere, and compile where TeX is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker

from bench.findings.table import SHRUNK

RESULTS = Path(__file__).parents[3] / "results"
TABLES = sorted(RESULTS.rglob("table*.tex"))
PAGE = r"""\documentclass{article}
\usepackage[paperwidth=150cm, paperheight=30cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
\input{%s}
\end{document}
"""


@pytest.mark.parametrize("file", TABLES, ids=[file.relative_to(RESULTS).as_posix() for file in TABLES])
def test_a_table_parses(file: Path) -> None:
    """Braces, dollars and environments match; every row of the tabular has one cell per column; it fits a page's."""
    text = file.read_text("utf-8")
    assert SHRUNK in text
    nodes, _, _ = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    assert [node.environmentname for node in nodes if isinstance(node, LatexEnvironmentNode)] == ["table"]
    head, _, rest = text.partition("\\toprule")
    lines = [line for line in rest.partition("\\bottomrule")[0].splitlines() if line.endswith(r"\\")]
    num_columns = len(head.rpartition("{tabular}{")[2].strip(" }\n"))
    assert lines
    assert {line.replace(r"\&", "").count("&") + 1 for line in lines} == {num_columns}
    assert text.isascii() or set(text) - set(map(chr, range(128))) <= set("·§")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
@pytest.mark.parametrize("file", TABLES, ids=[file.relative_to(RESULTS).as_posix() for file in TABLES])
def test_a_table_compiles(file: Path, tmp_path: Path) -> None:
    (tmp_path / "page.tex").write_text(PAGE % file, "utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
