"""Weights & Biases: a run's history, whose charts may have any cost as their x axis, and its results as an artifact.

A killed run, when resumed, continues its W&B run. Offline, W&B then writes another folder under the same id; the run so
far is logged there again, so that the newest folder of an id holds the whole run, and only that has to be sent, once
the file `COMPLETE` says that it does.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from bench.errors import InputError
from bench.runs.columns import BY_WORKER, COSTS, FALLING, METRICS
from bench.runs.results import RunFolder, versions

MODES = ("offline", "online")
COMPLETE = "complete"
"""A file in the folder that W&B writes for a run: the run has ended, and all of it is logged."""


class BudgetLogger(WandbLogger):
    """Lightning's logger, for a run of the suite.

    Args:
        folder: of the run's results; the id of its W&B run is kept there, too.
        mode: "offline", or "online" to send while it runs.
        kwargs: as for `WandbLogger`.

    Raises:
        InputError: an unknown mode.
    """

    def __init__(self, folder: Path | str, mode: str = "offline", **kwargs: Any) -> None:
        import wandb

        self.folder = RunFolder(Path(folder))
        # Silent: its greeting would break up the progress bars.
        settings = wandb.Settings(silent=True)
        super().__init__(id=self.folder.wandb_id, mode=_known(mode), settings=settings, **kwargs)
        self._wandb_init.pop("anonymous", None)  # W&B warns that it no longer has an effect
        # Offline there is nothing to resume: the run so far is logged again, and scripts/sync.py sends an id once.
        self._wandb_init["resume"] = "allow" if mode == "online" else None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started on first access."""
        import wandb

        if self._experiment is None:
            self._experiment = wandb.init(**self._wandb_init)
            self._experiment.define_metric("*", step_metric="round")
            for axis in COSTS:
                self._experiment.define_metric(axis)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the config and package versions, and store the W&B run's id in the folder, as the run has started."""
        super().log_hyperparams({**params, "versions": versions()})
        self.folder.write_wandb_id(self.experiment.id)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row of the history, at round `step`."""
        assert step is not None
        if step < self.experiment.starting_step:
            return  # W&B already has this row of a resumed run
        plain = {name: value for name, value in metrics.items() if name not in BY_WORKER}
        by_worker = {
            f"{name}/worker_{rank}": number for name in BY_WORKER for rank, number in enumerate(metrics.get(name, ()))
        }
        self.experiment.log({**plain, **by_worker}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep a complete run's costs at its target and best metrics in the summary, and its folder as an artifact."""
        if self._experiment is None or not self.folder.is_complete:
            return
        target = self.folder.summary()["target"]
        try:
            self.experiment.summary.update({f"target/{name}": value for name, value in target.items()})
            self.experiment.summary.update(self._best())
            _keep(self.experiment, str(self._name), self.folder.files())
        except Exception as error:  # whatever fails in W&B, the run is complete
            print(f"logger: the results are not kept as an artifact: {error}", file=sys.stderr)

    def _best(self) -> dict[str, float]:
        """The best value of each metric over the run, as best/<metric>."""
        rows = self.folder.history()
        metrics = dict.fromkeys((*METRICS, *FALLING))
        found = {name: [row[name] for row in rows if row[name] is not None] for name in metrics}
        return {f"best/{name}": (min if name in FALLING else max)(values) for name, values in found.items() if values}

    @rank_zero_only
    def end(self) -> None:
        """End the W&B run, so that the process's next run starts its own. It failed unless its results are complete."""
        import wandb

        if self._experiment is None:
            return
        try:
            _finish(self._experiment, self.folder.is_complete)
        except Exception as error:
            print(f"logger: not ended: {error}", file=sys.stderr)
            with suppress(Exception):
                wandb.teardown()  # its service may be gone; the next run needs a new one

    @classmethod
    def log_experiment(
        cls,
        folder: Path,
        files: Sequence[Path],
        titles: Sequence[str],
        records: Sequence[Any],
        mode: str,
        **kwargs: Any,
    ) -> None:
        """Log an experiment's table, and its files as an artifact, in a separate W&B run: <name>/table.

        Args:
            folder: of the experiment, whose name is the folder's.
            files: below the folder, to be kept.
            titles: of the table's columns.
            records: its rows.
            mode: as for a run.
            kwargs: of `wandb.init`, such as `project` and `dir`.
        """
        import wandb

        settings, name = wandb.Settings(silent=True), f"{folder.name}/table"
        run = wandb.init(
            group=folder.name, name=name, job_type="table", tags=(folder.name,),
            mode=_known(mode), settings=settings, **kwargs,
        )  # fmt: skip
        try:
            run.log({"table": wandb.Table(columns=list[str | int](titles), data=list(records))})
            _keep(run, name, files, folder)
        except BaseException:
            _finish(run, is_complete=False)
            raise
        _finish(run, is_complete=True)


def _known(mode: str) -> Any:
    if mode not in MODES:
        raise InputError(f"wandb_mode: {mode!r}; one of {', '.join(MODES)} is needed")
    return mode


def _keep(run: Any, name: str, files: Sequence[Path], root: Path | None = None) -> None:
    """Log files as an artifact of this name, by their paths below `root`."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type="results")
    for file in files:
        artifact.add_file(str(file), name=str(file.relative_to(root)) if root else file.name)
    run.log_artifact(artifact)


def _finish(run: Any, is_complete: bool) -> None:
    """End a W&B run; mark its folder once all of it is written."""
    folder = Path(run.dir).parent
    run.finish(exit_code=int(not is_complete))
    if is_complete and folder.exists():
        (folder / COMPLETE).touch()
