"""The history of a run: its costs at every evaluation."""

import math
from collections.abc import Mapping
from typing import Any

import lightning
from lightning import Callback, Trainer

from bench.errors import InputError, NonFiniteError
from bench.link import LinkModel
from bench.runs.columns import MEASURED, METRICS, Row, total_bits
from bench.runs.pace import Pace
from bench.runs.results import RunFolder
from bench.runs.targets import refuse_target
from bench.runs.whole import going_on
from bench.strategies.processes import CompressedDDPStrategy
from bench.strategies.simulated import CompressedStrategy
from bench.traffic import Traffic


class History(Callback):
    """Writes a run's results folder: a row of the ledger at every evaluation, a summary at the end.

    The rows go to the Trainer's loggers, too, with the run's pace, but not through `self.log` in each step, which costs
    0.5 ms per round. A resumed run logs its earlier rows again, as its loggers may have started anew.

    Args:
        folder: where to write.
        config: of the run, written to the folder once the checks at the start have passed.
        command: that makes this run, for the record.
        link: gives the seconds that the rows have; it can be another one when a run goes on.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], command: str, link: LinkModel) -> None:
        self.folder = folder
        self.config = config
        self.command = command
        self.link = link
        self.rows: list[Row] = []
        self.pace = Pace()
        self.downlink = ""
        self.loss_sum = 0.0
        self.num_losses = 0

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        interval, num_rounds = trainer.val_check_batch, trainer.estimated_stepping_batches
        assert interval is not None
        if not trainer.limit_val_batches:
            raise InputError("trainer.limit_val_batches: 0; evaluations make the history, above 0 is needed")
        if interval > num_rounds:
            raise InputError(
                f"trainer.val_check_interval: {interval}; at most {num_rounds} is allowed, the rounds of the run"
            )
        every = trainer.check_val_every_n_epoch
        if every is not None and (every - 1) * trainer.num_training_batches + interval > num_rounds:
            raise InputError(
                f"trainer.check_val_every_n_epoch: {every}; the run ends after {num_rounds} rounds, before its first "
                "evaluation"
            )
        if self.rows:  # a resumed run may have been given another target or link
            refuse_target(self.config["target"]["metric"], self.rows[-1])
            self.rows = [self._on_link(row) for row in self.rows]
        if trainer.is_global_zero:
            self.folder.write_config(self.config)
            for logger in trainer.loggers:
                with going_on("logger", Exception):
                    logger.log_hyperparams(dict(self.config))
            for row in self.rows:
                self._log(trainer, row)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        strategy, interval = compressed(trainer), trainer.val_check_batch
        assert interval is not None
        rounds = strategy.ledger.rounds if trainer.check_val_every_n_epoch is None else batch_idx
        strategy.gauged = (rounds + 1) % interval == 0  # an evaluation follows
        self.pace.round_begins(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.loss_sum += float(compressed(trainer).last_report.loss.mean())
        self.num_losses += 1

    def on_validation_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self.pace.evaluation_begins(compressed(trainer).ledger.rounds)

    def on_validation_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        strategy = compressed(trainer)
        ledger = strategy.ledger.state_dict()
        self.downlink = ledger.pop("downlink")  # a word, not a count
        traffic = ledger.pop("traffic") or {}
        row = self._on_link({"round": ledger.pop("rounds"), "epoch": trainer.current_epoch, **ledger, **traffic})
        if isinstance(strategy, CompressedStrategy):
            row |= dict.fromkeys(MEASURED)  # a simulation has no link to measure
        row["total_bits"] = total_bits(row)
        before = self.rows[-1] if self.rows else dict.fromkeys(row, 0)
        num_uploads = row["uploads"] - before["uploads"]
        row["message_bits"] = (row["uplink_bits"] - before["uplink_bits"]) / num_uploads if num_uploads else None
        for name in ("gradient_norm", "compression_error", "bits_over_bound"):
            gauged = getattr(strategy.last_report, name)
            row[name] = None if math.isnan(gauged) else gauged
        row["train_loss"] = self.loss_sum / self.num_losses  # over the rounds since the last evaluation
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        samples = data.batch_size / (strategy.estimator.num_parts if strategy.estimator else 1)  # per backward pass
        row["data_passes"] = row["num_backwards"] * samples / len(data.train)
        found = {name: value.item() for name, value in trainer.callback_metrics.items()}
        row |= {metric: found.get(metric) for metric in METRICS}
        if not self.rows:
            refuse_target(self.config["target"]["metric"], row)
        self.rows.append(row)
        self.loss_sum, self.num_losses = 0.0, 0
        if trainer.is_global_zero:
            with going_on("history.csv"):
                self.folder.write_history(self.rows)
            self._log(trainer, row)

    def _on_link(self, row: Row) -> Row:
        """A row with the seconds on the link; with None if the run began without counting what they follow from."""
        traffic = Traffic.of(row)
        return row | {"modelled_s": None if traffic is None else self.link.seconds(traffic)}

    def on_train_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            self._summarise(trainer)

    def on_exception(self, trainer: Trainer, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero and isinstance(exception, NonFiniteError):  # divergence is a result
            self._summarise(trainer, diverged=str(exception))

    def _summarise(self, trainer: Trainer, **facts: Any) -> None:
        if isinstance(strategy := compressed(trainer), CompressedDDPStrategy):
            facts["collective"] = strategy.cohort.collective.name
        self.folder.write_summary(self.rows, self.config["target"], self.command, downlink=self.downlink, **facts)

    def _log(self, trainer: Trainer, row: Row) -> None:
        for logger in trainer.loggers:
            with going_on("logger", Exception):  # whatever fails, the row is in history.csv
                told = {**row, **self.pace.by_round.get(row["round"], {})}
                logger.log_metrics({k: v for k, v in told.items() if v is not None}, step=row["round"])

    def state_dict(self) -> dict[str, Any]:
        kept = ("rows", "downlink", "loss_sum", "num_losses")
        return {"pace": self.pace.by_round, **{name: getattr(self, name) for name in kept}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        kept = dict(state_dict)
        self.pace.by_round = dict(kept.pop("pace", {}))  # an older version did not keep it
        self.__dict__.update(kept)
        self.rows = list(self.rows)


def compressed(trainer: Trainer) -> CompressedStrategy | CompressedDDPStrategy:
    """The Trainer's strategy, which must be a compressed one."""
    strategy = trainer.strategy
    assert isinstance(strategy, CompressedStrategy | CompressedDDPStrategy)
    return strategy
