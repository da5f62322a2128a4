"""Files that appear whole or not at all, whenever the process that writes them dies."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which replaces it once it is on the disk; if writing fails, it is removed."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # names the file that is meant
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def going_on(what: str, trouble: type[Exception] = OSError) -> Iterator[None]:
    """Report a failed write, on a full disk for example, and let the run go on: the next write may succeed."""
    try:
        yield
    except trouble as error:
        print(f"{what}: not written, the run goes on: {error}", file=sys.stderr)
