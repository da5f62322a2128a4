"""The page: markup, style, script and Plotly in one file, with the data or with where to ask for them."""

import json
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs


def page(data: dict[str, Any] | None) -> str:
    """The dashboard as HTML that loads nothing else.

    Args:
        data: of `Store.data`; None for a page that asks its server for data.json, and goes on asking.
    """
    parts = files("bench.findings.dashboard")
    values = {
        "/*style*/": (parts / "page.css").read_text("utf-8"),
        "/*plotly*/": get_plotlyjs(),
        "/*data*/": "null" if data is None else json.dumps(data, ensure_ascii=False).replace("</", "<\\/"),
        "/*script*/": (parts / "page.js").read_text("utf-8"),
    }
    text = (parts / "page.html").read_text("utf-8")
    for mark, value in values.items():
        before, _, after = text.partition(mark)
        text = before + value + after
    return text
