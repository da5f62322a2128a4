"""Shared by all tests: one CPU thread, as in every run, synthetic data, and the flag that rewrites golden traces."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.laws.options import pytest_addoption  # noqa: F401
from bench.suite.datamodules.shakespeare import Shakespeare


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of random arrays in the shapes of the downloaded data sets, which test machines do not have."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, num_train, shape, num_classes in (
        ("mnist", 12_000, (28, 28), 10),
        ("cifar10", 6_000, (32, 32, 3), 10),
        ("cifar100", 6_000, (32, 32, 3), 100),
    ):
        x = rng.integers(0, 256, (num_train + 200, *shape), dtype=np.uint8)
        y = (np.arange(num_train + 200) % num_classes).astype(np.uint8)
        train, test = slice(num_train), slice(num_train, None)
        np.savez(folder / f"{name}.npz", x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])
    text = rng.integers(33, 98, 200_000, dtype=np.uint8).tobytes()
    (folder / "shakespeare.txt").write_bytes(text)
    Shakespeare.digest = hashlib.sha256(text).hexdigest()
    return folder
