"""Whose recipes the laws are held against."""

import logging
from pathlib import Path

import pytest
import torch

from bench.laws.options import pytest_addoption  # noqa: F401
from bench.laws.theirs import Theirs, theirs


def pytest_configure(config: pytest.Config) -> None:
    """Use one thread, as in every run."""
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each law every part or recipe that it is about."""
    from bench.laws import compressors, garbage, recipes

    package = metafunc.config.getoption("--recipes")
    found = theirs(package) if package else Theirs({}, Path())
    names = set(metafunc.fixturenames)
    if "case" in names:
        cases = [pytest.param(case, id=case[0]) for case in compressors.cases(found.compressors)]
        metafunc.parametrize("case", cases)
        metafunc.parametrize("law", compressors.ON_CASES, ids=lambda law: law.__name__)
    elif "compressor" in names:
        metafunc.parametrize("compressor", found.compressors.values(), ids=found.compressors.keys())
        laws = (*compressors.ON_COMPRESSORS, *garbage.ON_COMPRESSORS)
        metafunc.parametrize("law", laws, ids=lambda law: law.__name__)
    elif "recipe" in names:
        metafunc.parametrize("recipe", found.recipes.values(), ids=found.recipes.keys())
        if "law" in names:
            metafunc.parametrize("law", recipes.ALONE, ids=lambda law: law.__name__)


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest) -> Theirs:
    """What the package has."""
    return theirs(request.config.getoption("--recipes"))


@pytest.fixture(scope="session")
def processes(found: Theirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what real processes ended with."""
    from bench.laws.recipes import M, in_processes
    from bench.suite.scripts.bare import forked

    folder = tmp_path_factory.mktemp("processes")
    forked(M, in_processes, folder, found.recipes)
    return folder
