"""The package is layered: each module or subpackage imports only its own layer and those below."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench

PACKAGE = Path(bench.__file__).parent
ORDER = [
    "registration", "findings", "runs", "strategies", "loops", "round", "estimators", "collectives",
    "vocabulary", "gradients", "wire", "kernels", "extras", "kinds", "errors",
]  # fmt: skip
VOCABULARY = [
    "adversary", "aggregators", "algorithm", "compressors", "configured", "feedback", "knobs", "link", "local_steps",
    "moments", "names", "recipes", "rules", "searchpath", "traffic",
]  # fmt: skip
"""The modules that configs and users name; together one layer. `bench/__init__.py` exports their public names, and may
import anything."""


def room(module: str) -> str:
    name = module.split(".")[1]
    return "vocabulary" if name in VOCABULARY else name


def imports(file: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("bench.suite."):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bench":
            yield from [node.module or ""] if node.module != "bench" else [f"bench.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("bench."))


def rooms() -> list[Path]:
    """Return the top-level modules and subpackages, but for tests, laws, and the suite, whose folders lie outside."""
    there = (p for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
    return sorted(p for p in there if p.name not in ("__init__.py", "tests", "suite", "laws"))


def test_every_file_is_in_a_room() -> None:
    assert {room(f"bench.{p.stem}") for p in rooms()} == set(ORDER)


@pytest.mark.parametrize("path", rooms(), ids=lambda p: p.stem)
def test_no_room_imports_one_above_it(path: Path) -> None:
    allowed = ORDER[ORDER.index(room(f"bench.{path.stem}")) :]
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        above = {module for module in imports(file) if room(module) not in allowed}
        assert not above, f"{file.relative_to(PACKAGE)} imports {above}"


def test_the_round_fits_on_a_page() -> None:
    """`round/cohort.py` has at most 120 lines and checks no types."""
    page = (PACKAGE / "round" / "cohort.py").read_text("utf-8")
    assert len(page.splitlines()) <= 120
    assert "isinstance" not in page


@pytest.mark.parametrize("folder", [p.stem for p in rooms() if p.is_dir()])
def test_rooms_have_their_laws(folder: str) -> None:
    """Every subpackage has tests in the folder of its name. The vocabulary needs none, since all tests exercise it."""
    assert any((PACKAGE / "tests" / folder).glob("test_*.py")) or folder in VOCABULARY
