"""Send offline W&B runs to the server, each once, when it has come to its end.

    python scripts/sync.py                      # what is in ./wandb
    python scripts/sync.py --wandb-dir ~/wandb  # elsewhere
    python scripts/sync.py --dry-run

Safe to repeat: what was sent stays as it is. A run that was killed or failed, and resumed, lies in several folders, of
which the newest holds all of it, and alone is sent; one that has not come to its end waits until it has. A diverged run
has. Exit status 1 if a run could not be sent.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tqdm.auto import tqdm

from bench.errors import InputError
from bench.runs.wandb_logger import COMPLETE
from scripts.cli import guarded


def newest_by_id(wandb_dir: Path) -> dict[str, Path]:
    """The newest offline folder of every run that has not been sent, by its id.

    Raises:
        InputError: no such folder.
    """
    if not wandb_dir.is_dir():
        raise InputError(f"--wandb-dir: {wandb_dir}; a folder that W&B wrote is needed")
    folders = sorted(wandb_dir.glob("offline-run-*"))  # by date, which follows
    sent = {_id(marker.parent) for marker in wandb_dir.glob("offline-run-*/*.wandb.synced")}
    return {_id(folder): folder for folder in folders if _id(folder) not in sent}


def is_finished(folder: Path) -> bool:
    """Whether an offline run has said that it is complete, and ended."""
    if (file := next(folder.glob("*.wandb"), None)) is None:
        return False
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{file}: W&B cannot read it: {' '.join(done.stderr.split())[-200:]}")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    complete = any(COMPLETE in r["summary"].get("update", {}) for r in records if r["type"] == "summary")
    return complete and any(r["type"] == "exit" for r in records)


def sync(wandb_dir: Path, dry_run: bool) -> None:
    """Send what waits."""
    waiting = newest_by_id(wandb_dir)
    finished = [folder for folder in tqdm(waiting.values(), "looking", unit="run", leave=False) if is_finished(folder)]
    if finished and not dry_run:
        subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, finished)], check=False)
    failed = [] if dry_run else [folder for folder in finished if not list(folder.glob("*.wandb.synced"))]
    done = "to be sent" if dry_run else "sent"
    print(f"{wandb_dir}: {len(finished) - len(failed)} runs {done}, {len(waiting) - len(finished)} not finished yet")
    for folder in failed:
        print(f"failed: {folder}")
    if failed:
        sys.exit(1)


def _id(folder: Path) -> str:
    """Of its run; it may have dashes, the time before it has none."""
    return folder.name.removeprefix("offline-run-").partition("-")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wandb-dir", type=Path, default=Path("wandb"))
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent")
    args = parser.parse_args()
    guarded(lambda: sync(args.wandb_dir, args.dry_run))


if __name__ == "__main__":
    main()
