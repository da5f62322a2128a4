"""What an experiment found, to be looked at: one HTML file that needs no network, or a server that follows runs."""

from bench.findings.dashboard.data import Store
from bench.findings.dashboard.page import page

__all__ = ["Store", "page"]
