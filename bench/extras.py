"""Packages that only some commands need, and the extra of bitbudget that brings them."""

from importlib.util import find_spec

from bench.errors import InputError

EXTRAS = {
    "wandb": "wandb",
    "wandb_workspaces": "wandb",
    "plotly": "dashboard",
    "pytest": "check",
    "hypothesis": "check",
}


def missing(package: str) -> str:
    """How to install a package, if it is not; else an empty string."""
    if find_spec(package):
        return ""
    return f"{package} is not installed, pip install 'bitbudget[{EXTRAS[package]}]' brings it"


def need(field: str, *packages: str) -> None:
    """Check that packages are installed. `field`: what needs them.

    Raises:
        InputError: one is missing; the message names the extra.
    """
    for package in packages:
        if told := missing(package):
            raise InputError(f"{field}: {told}")
