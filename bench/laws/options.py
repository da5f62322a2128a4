"""The options of the laws, for pytest wherever bitbudget is installed: `pytest --pyargs bench.laws --recipes yours`."""

from contextlib import suppress
from typing import Any


def pytest_addoption(parser: Any) -> None:
    """Add them, unless they are there already: pytest finds this by the package's entry point, or by a conftest."""
    with suppress(ValueError):
        parser.addoption("--recipes", metavar="PACKAGE", help="hold the laws against the recipes of this package")
    with suppress(ValueError):
        parser.addoption("--rewrite-golden", action="store_true", help="write today's ledger traces as the golden ones")
