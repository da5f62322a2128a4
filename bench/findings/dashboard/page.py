"""Builds the page: one HTML file with style, script, Plotly and, unless it is served live, the data."""

import json
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

SCRIPTS = [
    "parts",
    "words",
    "looks",
    "charts",
    "address",
    "experiment",
    "grid",
    "tables",
    "overview",
    "network",
    "live",
    "page",
]


def page(data: dict[str, Any] | None) -> str:
    """The dashboard as self-contained HTML.

    Args:
        data: from `Store.data`; None for a page that asks its server for it.
    """
    parts = files("bench.findings.dashboard")
    values = {
        "/*style*/": (parts / "page.css").read_text("utf-8"),
        "/*plotly*/": get_plotlyjs(),
        "/*data*/": "null" if data is None else json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        "/*scripts*/": "\n".join((parts / f"{name}.js").read_text("utf-8") for name in SCRIPTS),
    }
    text = (parts / "page.html").read_text("utf-8")
    for mark, value in values.items():
        before, _, after = text.partition(mark)
        text = before + value + after
    return text
