"""The dashboard of the results: one HTML file that needs no network, or a local server that follows runs."""

from bench.findings.dashboard.data import Store
from bench.findings.dashboard.page import page

__all__ = ["Store", "page"]
