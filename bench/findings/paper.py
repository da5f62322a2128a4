"""The look of figures on paper, and their files."""

from io import BytesIO
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from bench.runs.whole import write_whole

LOOK = Path(__file__).with_name("paper.mplstyle")


def save(drawing: Figure, folder: Path, source: str) -> None:
    """Write figure.png and figure.pdf, byte-identical for the same data. The PNG's metadata holds `source`."""
    with matplotlib.style.context(LOOK):
        for suffix, metadata in (
            ("png", {"Software": None, "Source": source}),
            ("pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        ):
            content = BytesIO()
            drawing.savefig(content, format=suffix, metadata=metadata)
            write_whole(folder / f"figure.{suffix}", content.getvalue())
