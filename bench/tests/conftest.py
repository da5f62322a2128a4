"""What all tests share: one thread, as in every run, and the flag that rewrites golden traces."""

import logging

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write today's ledger traces as the golden ones")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)
