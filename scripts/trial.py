"""What a run costs on this machine: a few rounds of it are timed, and an evaluation."""

import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from omegaconf import DictConfig
from torch.profiler import ProfilerActivity, profile

from bench.configured import instantiate
from bench.runs.history import compressed
from bench.suite.scripts.bare import BARE
from bench.suite.scripts.benchmark import PlainSteps
from bench.suite.scripts.rounds import strategy_and_module

FIRST, TIMED, PROFILED = 12, 10, 3  # rounds; in the first ten lazy rules upload always


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        engine: that computed the gradients.
        start_s: seconds until the first rounds are done.
        round_s, evaluation_s, plain_s: seconds of a round, of an evaluation, and of a step of plain PyTorch on the
            joint batch.
        num_rounds, num_evaluations: of the whole run.
        busy: the share of a round in which the device computes; in the rest it waits for launches.
        num_bytes: of the device's memory, at most.
    """

    engine: str
    start_s: float
    round_s: float
    evaluation_s: float
    plain_s: float
    num_rounds: int
    num_evaluations: int
    busy: float
    num_bytes: int

    @property
    def run_s(self) -> float:
        return self.start_s + self.num_rounds * self.round_s + self.num_evaluations * self.evaluation_s


class Clock(Callback):
    """Times the rounds of a trial, the evaluation after them, and plain steps."""

    def __init__(self, plain: torch.nn.Module, num_images: int) -> None:
        self.plain, self.num_images = plain, num_images
        self.rounds_s: list[float] = []
        self.profiler = profile(activities=[ProfilerActivity.CUDA], acc_events=True)
        self.began = self.last = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now, step, on_cuda = self._now(), trainer.global_step, pl_module.device.type == "cuda"
        if step == FIRST:
            self.start_s = now - self.began
        elif FIRST < step <= FIRST + TIMED:
            self.rounds_s.append(now - self.last)
        if step == FIRST + TIMED and on_cuda:
            self.profiler.start()
        if step == FIRST + TIMED + PROFILED and on_cuda:
            self.profiler.stop()
        self.last = self._now()

    def on_validation_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self.last = self._now()

    def on_validation_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        self.evaluation_s = self._now() - self.last

    def on_train_end(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self.engine = compressed(trainer).fitting.chosen.name
        step, times = PlainSteps(self.plain, *data.test[torch.arange(self.num_images)]), []
        for _ in range(2 * TIMED):
            began = self._now()
            step()
            times.append(self._now() - began)
        self.plain_s = statistics.median(times[TIMED:])

    @property
    def busy_s(self) -> float:
        """Seconds in which the device computed, of a profiled round."""
        return sum(event.self_device_time_total for event in self.profiler.key_averages()) / 1e6 / PROFILED

    def _now(self) -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


def tried(cfg: DictConfig) -> Cost:
    """Run a few rounds of a config.

    Raises:
        InputError: the config cannot be run here.
    """
    torch.set_num_threads(cfg.threads)
    on_cuda = cfg.trainer.accelerator == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    strategy, module = strategy_and_module(cfg)
    clock, last = Clock(instantiate(cfg.model), cfg.workers * cfg.data.batch_size), FIRST + TIMED + PROFILED
    short = {"max_steps": last, "max_epochs": -1, "val_check_interval": last, "check_val_every_n_epoch": None}
    options = {**cfg.trainer, **BARE, **short, "limit_val_batches": 1.0, "num_sanity_val_steps": 0}
    trainer = Trainer(strategy=strategy, callbacks=[clock], **options)
    trainer.fit(module, datamodule=instantiate(cfg.data))
    round_s = statistics.median(clock.rounds_s)
    whole = cfg.trainer.get("max_steps", -1)
    num_rounds = whole if whole > 0 else cfg.trainer.max_epochs * int(trainer.num_training_batches)
    return Cost(
        engine=clock.engine,
        start_s=clock.start_s,
        round_s=round_s,
        evaluation_s=clock.evaluation_s,
        plain_s=clock.plain_s,
        num_rounds=num_rounds,
        num_evaluations=num_rounds // cfg.trainer.val_check_interval,
        busy=(clock.busy_s / round_s or 1.0) if on_cuda else cfg.threads / (os.cpu_count() or 1),
        num_bytes=torch.cuda.max_memory_reserved() if on_cuda else 0,
    )
