"""Send finished offline W&B runs to the server, each once.

    python scripts/sync.py                      # runs in ./wandb
    python scripts/sync.py --wandb-dir ~/wandb  # runs elsewhere
    python scripts/sync.py --dry-run

Safe to repeat: runs that were sent are skipped. A run that was killed or failed and then resumed has several folders;
only the newest, which holds the whole run, is sent. Unfinished runs are left for a later call; a diverged run counts as
finished. Exit status 1 if a run could not be sent.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse
import subprocess
import sys
from pathlib import Path

from bench.errors import InputError
from bench.extras import need
from bench.runs.wandb_logger import COMPLETE
from bench.suite.scripts.cli import guarded, one_line


def newest_by_id(wandb_dir: Path) -> dict[str, Path]:
    """The newest offline folder of every run that has not been sent, by the run's id.

    Raises:
        InputError: `wandb_dir` is not a folder.
    """
    if not wandb_dir.is_dir():
        raise InputError(f"--wandb-dir: {wandb_dir}; a folder that W&B wrote is needed")
    folders = sorted(wandb_dir.glob("offline-run-*"))  # in order of time, which comes next in the name
    sent = {_id(marker.parent) for marker in wandb_dir.glob("offline-run-*/*.wandb.synced")}
    return {_id(folder): folder for folder in folders if _id(folder) not in sent}


def log_in() -> None:
    """Make sure that W&B takes runs from here.

    Raises:
        InputError: there is no key, or W&B refuses it or does not answer.
    """
    need("sync", "wandb")
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    try:
        has_key = wandb.login(prompt=False)
    except Exception as error:  # wandb.errors.AuthenticationError, and more kinds for a key of another form
        raise InputError(f"W&B: not logged in, nothing is sent: {one_line(error)}") from error
    if not has_key:
        raise InputError("W&B: not logged in, nothing is sent; `wandb login` or WANDB_API_KEY is needed")


def sync(wandb_dir: Path, dry_run: bool) -> None:
    """Send the finished runs that were not sent yet, all in one process of W&B's.

    Raises:
        InputError: `wandb_dir` is not a folder; there is something to send, but W&B takes nothing from here.
    """
    waiting = newest_by_id(wandb_dir)
    finished = [folder for folder in waiting.values() if (folder / COMPLETE).exists()]
    unfinished = [folder for folder in waiting.values() if folder not in finished]
    if finished and not dry_run:
        log_in()
        subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, finished)], check=False)
    failed = [] if dry_run else [folder for folder in finished if not list(folder.glob("*.wandb.synced"))]
    done = "to be sent" if dry_run else "sent"
    print(f"{wandb_dir}: {len(finished) - len(failed)} runs {done}, {len(unfinished)} not finished yet")
    if unfinished:
        print("`wandb sync FOLDER` sends one of these as it is; earlier versions did not mark which runs are finished:")
    for folder in unfinished:
        print(folder)
    for folder in failed:
        print(f"failed: {folder}")
    if failed:
        sys.exit(1)


def _id(folder: Path) -> str:
    """The run's id from a folder's name. The id may contain dashes; the time before it does not."""
    return folder.name.removeprefix("offline-run-").partition("-")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wandb-dir", type=Path, default=Path("wandb"))
    parser.add_argument("--dry-run", action="store_true", help="only say how many runs would be sent")
    args = parser.parse_args()
    guarded(lambda: sync(args.wandb_dir, args.dry_run))


if __name__ == "__main__":
    main()
