"""Packages that only some commands need, and the extra of bitbudget that brings them."""

from contextlib import suppress
from importlib.util import find_spec

from bench.errors import InputError

EXTRAS = {
    "wandb": "wandb",
    "wandb_workspaces": "wandb",
    "plotly": "dashboard",
    "pytest": "check",
    "hypothesis": "check",
    "optuna": "tune",
    "hydra_plugins.hydra_joblib_launcher": "joblib",
    "hydra_plugins.hydra_submitit_launcher": "slurm",
    "hydra_plugins.hydra_ray_launcher": "ray",
}


def missing(package: str) -> str:
    """What brings a package that is not installed; else an empty string."""
    with suppress(ModuleNotFoundError):  # its parent is missing, too
        if find_spec(package):
            return ""
    return f"{package.rpartition('.')[2]} is not installed; bitbudget's extra [{EXTRAS[package]}] brings it"


def need(field: str, *packages: str) -> None:
    """Check that packages are installed. `field`: what needs them.

    Raises:
        InputError: one is missing; the message names the extra.
    """
    for package in packages:
        if told := missing(package):
            raise InputError(f"{field}: {told}")
