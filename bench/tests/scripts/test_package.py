"""What `pip install bitbudget` gives, outside of the checkout: the wheel, where there are but its dependencies."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TAKEN = ("configs", "models", "datamodules", "scripts")
"""Names that a project may have itself."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with packages of those names, and the wheel's contents in its folder `site`."""
    folder = tmp_path_factory.mktemp("package")
    kept = ("bench", *TAKEN, "pyproject.toml", "README.md", "LICENSE")
    tree = folder / "tree"
    tree.mkdir()
    for name in kept:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        elif source.exists():
            shutil.copy(source, tree / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, tree]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "project").mkdir()
    for name in TAKEN:
        (folder / "project" / name).mkdir()
        (folder / "project" / name / "__init__.py").write_text('raise ImportError("the project\'s own")')
    return folder


def run(project: Path, *arguments: str, after: str = "") -> str:
    """Run the installed command in the project, whose packages are first on the path. Returns what it prints.

    Args:
        after: statements that follow in the same process.
    """
    # A folder on PYTHONPATH is searched, but not its .pth files: of the checkout there is nothing to be seen.
    path = [project / "project", project / "site", sysconfig.get_paths()["purelib"]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONSAFEPATH": "1"}
    script = f"from bench.suite.scripts.command import main; main(); {after}"
    command = [sys.executable, "-S", "-c", script, *arguments]
    done = subprocess.run(command, env=environment, cwd=project / "project", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_names(project: Path) -> None:
    """All files are in one package, those that are no Python too."""
    there = {entry.name for entry in (project / "site").iterdir()}
    assert there == {"bench", "bitbudget-0.1.0.dist-info"}
    for kind in ("*.yaml", "*.js", "*.css", "*.html", "*.mplstyle", "py.typed", "*.sh"):
        expected = {p.relative_to(project / "tree") for p in (project / "tree" / "bench").rglob(kind)}
        for name in TAKEN:
            here = project / "tree" / name
            expected |= {"bench/suite" / p.relative_to(project / "tree") for p in here.rglob(kind)}
        assert all((project / "site" / file).exists() for file in expected), kind


def test_help_imports_nothing(project: Path) -> None:
    told = run(project, "--help", after="import sys; assert 'torch' not in sys.modules")
    for name in ("train", "matrix", "sasg_mnist", "powersgd", "resnet18"):
        assert name in told
    assert run(project, "--version") == "bitbudget 0.1.0\n"


def test_its_quickstart_runs(project: Path) -> None:
    cell = ["matrix.algorithm=[sgd]", "matrix.seed=[1]", "trainer.max_epochs=1", "jobs=1", "logger=csv"]
    assert "1 of 1 runs complete" in run(project, "matrix", "experiment=quickstart", *cell)
    assert (project / "project" / "results" / "quickstart" / "sgd" / "seed=1" / "summary.json").exists()
