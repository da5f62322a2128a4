"""The results store: one folder per run, `results/<experiment>/<label>/seed=<n>/`; the label is the algorithm's name
unless a matrix has several runs of it to distinguish.

    config.yaml     what was run; written first, and again only with another target or link
    history.csv     a row per evaluation, rewritten as the run goes on
    summary.json    the last row, the target, versions and the command; its presence means the run is complete; a
                    diverged run is complete, too, and its summary says where it diverged
    split.png       which worker held which samples
    last.ckpt       the checkpoint from which an interrupted run resumes; removed when it is complete
    run.lock        held by the process that runs it, and run.claim for those on other machines (bench.runs.claim)
    failed.txt      the last words of the run, if it failed; removed when it is begun again
    wandb.id        id of the W&B run that it is logged to, if any

Each file appears whole or not at all.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import yaml
from filelock import FileLock, Timeout

from bench.errors import InputError
from bench.runs.claim import Claim, HeldError, claimed
from bench.runs.columns import COLUMNS, Row
from bench.runs.differences import differences
from bench.runs.stored import as_csv, damage_of, read_config, read_rows, read_summary
from bench.runs.targets import target_reached
from bench.runs.whole import write_whole

VIEWS = ("target", "link")
"""Keys of a config that change how a run is looked at, but not its result."""

MEANS = ("strategy.timeout", "trainer.devices", "trainer.num_nodes")
"""Where the processes of a run live, and how long they wait for each other, which may change when it goes on."""

WRITTEN = ("config.yaml", "history.csv", "summary.json", "split.png", "last.ckpt", "wandb.id")
"""The files that the process that holds a run writes to its folder, and no other."""

PACKAGES = ("torch", "lightning", "numpy", "numba", "hydra-core")


@dataclass(frozen=True)
class RunFolder:
    """The results of one run."""

    path: Path

    @classmethod
    def of(cls, cfg: Any) -> Self:
        """The folder of the run that a config describes.

        Raises:
            InputError: its name or label is missing, or cannot be a folder's name.
        """
        for key in ("name", "label"):
            if not (given := str(cfg[key] or "")).strip() or "/" in given or given in (".", ".."):
                raise InputError(f"{key}: {cfg[key]!r}; results need one, a folder's name")
        if not str(cfg.results_dir or "").strip():
            raise InputError(f"results_dir: {cfg.results_dir!r}; a folder is needed, such as results")
        return cls(Path(cfg.results_dir) / str(cfg.name) / str(cfg.label) / f"seed={cfg.seed}")

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    def checked_checkpoint(self) -> Path | None:
        """The checkpoint from which the run resumes; None if there is none.

        Raises:
            InputError: the checkpoint is damaged.
        """
        if not self.checkpoint.exists():
            return None
        if damaged := damage_of(self.checkpoint):
            raise InputError(f"{self.checkpoint}: damaged, remove it and the run begins anew: {damaged}")
        return self.checkpoint

    @property
    def is_complete(self) -> bool:
        return (self.path / "summary.json").exists()

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    @property
    def is_held(self) -> bool:
        """Whether a process holds this run now."""
        if not self.lock.exists():
            return False
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    @property
    def claim(self) -> Claim | None:
        """The claim of whoever runs this run now, on whichever machine; None if nobody does."""
        claim = Claim.read(self.path / "run.claim")
        return claim if claim and claim.is_live else None

    @property
    def claim_told(self) -> str:
        """Who runs this run now; empty if nobody does."""
        claim = self.claim
        return claim.told if claim else ""

    def state(self) -> tuple[str, str]:
        """What has become of the run, and a word on it.

        One of "complete" (with where it diverged, if it did), "damaged" (how), "running" (by whom, and how far),
        "failed" (its last words), "interrupted" (after which round it goes on or was last evaluated) and "left".
        """
        if self.is_complete:
            if damage := self.damage:
                return "damaged", damage
            return "complete", self.summary().get("diverged") or ""
        if told := self.claim_told:
            return "running", told
        if self.failed.exists():
            return "failed", self.failed.read_text("utf-8").strip()
        rows = self.history()
        if rows or self.checkpoint.exists():
            return "interrupted", f"last evaluated in round {rows[-1]['round']:,}" if rows else ""
        return "left", ""

    @property
    def damage(self) -> str | None:
        """What is wrong with the files of a complete run; None if they can be read and agree, or it is not complete."""
        if not self.is_complete:
            return None
        try:
            self.config()
            self.history()
        except InputError as error:
            return str(error)
        return None

    @property
    def failed(self) -> Path:
        """The file with the last words of a run that failed."""
        return self.path / "failed.txt"

    @contextmanager
    def held(self) -> Iterator[Claim]:
        """Keep other processes out of this run, here and on other machines. The system releases the lock when the
        process dies, however it does; the claim of a dead process is stale.

        Raises:
            InputError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock, busy = FileLock(self.lock), f"{self.path}: another process runs it"
        try:
            lock.acquire(timeout=1)  # `is_held` takes it for an instant
        except Timeout:
            raise InputError(f"{busy}; let it end, or choose another name=") from None
        try:
            with claimed(self.path / "run.claim") as claim:
                self.failed.unlink(missing_ok=True)
                for name in WRITTEN:  # of a process that was killed while it wrote
                    for partial in self.path.glob(f"{name}.*.partial"):
                        partial.unlink(missing_ok=True)
                yield claim
        except HeldError as held:
            raise InputError(f"{busy} ({held.args[0].told}); let it end, or choose another name=") from None
        finally:
            lock.release()
            if self.is_complete or not self.files():
                self.lock.unlink(missing_ok=True)
            with suppress(OSError):  # usually not empty; but a rejected run leaves nothing
                for folder in (self.path, *self.path.parents[:2]):
                    folder.rmdir()

    @property
    def wandb_id(self) -> str | None:
        """The id of the W&B run that this run started; None if there is none."""
        file = self.path / "wandb.id"
        return file.read_text("utf-8").strip() if file.exists() else None

    def write_wandb_id(self, wandb_id: str) -> None:
        write_whole(self.path / "wandb.id", f"{wandb_id}\n")

    def files(self) -> list[Path]:
        """The files worth keeping."""
        names = ("config.yaml", "history.csv", "summary.json", "split.png")
        return [file for name in names if (file := self.path / name).exists()]

    def check(self, config: Mapping[str, Any]) -> None:
        """Check that a run in this folder, if there is one, has this config, but for `VIEWS` and `MEANS`.

        Raises:
            InputError: another config; the message names the keys that differ.
        """
        if not (self.path / "config.yaml").exists():
            if others := [name for name in ("history.csv", "summary.json", "last.ckpt") if (self.path / name).exists()]:
                told = f"{self.path}: {', '.join(others)} of a run without config.yaml, which fits no config"
                raise InputError(f"{told}; restore it, or remove the folder")
            return
        if not any((self.path / name).exists() for name in ("history.csv", "summary.json", "last.ckpt")):
            return  # nothing was computed under the config that is there
        differing = differences(self.config(), config).items()
        if others := {
            key: values for key, values in differing if key.split(".")[0] not in VIEWS and not key.startswith(MEANS)
        }:
            named = {key: ["nothing" if value is None else value for value in pair] for key, pair in others.items()}
            told = ", ".join(f"{key} ({there} there, {now} now)" for key, (there, now) in named.items())
            raise InputError(
                f"{self.path}: written under another config: {told}; choose another name= or label=, or remove it; "
                f"when a run goes on, {', '.join((*MEANS, *VIEWS))} may be others"
            )

    def config(self) -> dict[str, Any]:
        """The config of the run.

        Raises:
            InputError: the file holds no config, or that of another seed, as where a folder was copied.
        """
        config, folder = read_config(file := self.path / "config.yaml"), self.path.name
        if folder.startswith("seed=") and "seed" in config and f"seed={config['seed']}" != folder:
            raise InputError(f"{file}: of seed {config['seed']}; {folder} is needed, a copy is no further run")
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_whole(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def write_history(self, rows: Sequence[Row]) -> None:
        write_whole(self.path / "history.csv", as_csv(rows))

    def history(self) -> list[Row]:
        """The rows so far, none before the first evaluation. Columns that an older version did not write are None.

        Raises:
            InputError: the file is damaged, has columns that this version does not know, or does not end with its run.
        """
        file = self.path / "history.csv"
        if not file.exists():
            if self.is_complete and (said := self.summary().get("round")) is not None:
                raise InputError(f"{file}: missing; summary.json says round {said}, restore it or remove the run")
            return []
        rows = read_rows(file)
        end = rows[-1]["round"] if rows else None
        if not self.is_complete:
            return rows
        if end != (said := (summary := self.summary()).get("round")):
            raise InputError(f"{file}: ends at round {end}; summary.json says {said}, restore it or remove the run")
        for name, value in (rows[-1] if rows else {}).items():
            if value is None or name not in summary:  # of an older version
                continue
            if not (summary[name] == value or (summary[name] != summary[name] and value != value)):
                told = f"{file}: {name}: {value} in its last row; summary.json says {summary[name]}"
                raise InputError(f"{told}, restore it or remove the run")
        return rows

    def write_summary(self, rows: Sequence[Row], target: Mapping[str, Any], command: str, **facts: Any) -> None:
        """Mark the run complete: write the rows, the last one's figures, further facts, and the costs at the target."""
        self.write_history(rows)
        last: Row = dict.fromkeys(COLUMNS) | (rows[-1] if rows else {})
        summary = {
            **last,
            **facts,
            "target": target_reached(rows, target["metric"], target["value"]),
            "versions": versions(),
            "command": command,
        }
        write_whole(self.path / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        self.checkpoint.unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """The summary of a complete run.

        Raises:
            InputError: the file is damaged.
        """
        return read_summary(self.path / "summary.json")


def versions() -> dict[str, str]:
    """The package versions, which a result may depend on besides its config."""
    return {package: version(package) for package in PACKAGES}
