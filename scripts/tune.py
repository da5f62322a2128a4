"""Tunes every arm of an experiment with the same number of trials, on training data that are held out.

    python scripts/tune.py experiment=pretraining budget=8
    python scripts/tune.py experiment=pretraining budget=8 jobs=2 'arms=[adamw,diloco]'

An experiment's `tune` declares knobs, their ranges and scales, and a recipe those of its own. Optuna's TPE proposes
`budget` trials an arm from the results of a quarter of a run; the better half goes on to half of it, the best two to
its end, which decides. Nothing is lost when it is killed: the same command goes on. It writes studies to
<results_dir>/<name>/tuning/, and tuned.yaml there: an experiment, to be put beside the others, that runs every arm as
tuned.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import csv
import io
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from tqdm.auto import tqdm

from bench.errors import InputError
from bench.extras import need
from bench.knobs import Knob
from bench.runs.columns import FALLING
from bench.runs.described import described
from bench.runs.grid import cells
from bench.runs.overrides import composable
from bench.runs.results import RunFolder
from bench.runs.tuning import Tuning, survivors
from bench.runs.whole import write_whole
from bench.suite.scripts.cli import guarded
from bench.suite.scripts.launchers import run_alone
from bench.suite.scripts.train import refuse

OWN = ("budget", "jobs", "arms")


class Arm:
    """The tuning of one arm: a study whose trials are runs.

    Args:
        name: of the arm.
        overrides: of its runs, but for knobs.
        num_rounds: of a whole run.
        knobs: that are tuned.
        tuning: of the experiment.
        budget: trials.
        told: what the arm is, to recognise a study of it.
        cfg: of the experiment.
        folder: where studies are kept.

    Raises:
        InputError: the study that is there is of another experiment.
    """

    def __init__(
        self,
        name: str,
        overrides: Sequence[str],
        num_rounds: int,
        knobs: list[Knob],
        tuning: Tuning,
        budget: int,
        told: str,
        cfg: DictConfig,
        folder: Path,
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self.overrides, self.num_rounds, self.cfg = name, overrides, num_rounds, cfg
        self.knobs = knobs
        self.held_out = tuning.held_out
        self.lengths = [max(1, round(share * num_rounds)) for share in tuning.shares]
        self.numbers = survivors(budget, len(self.lengths))
        self.falls = cfg.target.metric in FALLING
        self.folder = folder
        self.study = optuna.create_study(
            study_name=f"{cfg.name}/{name}",
            storage=JournalStorage(JournalFileBackend(str(folder / f"{name}.journal"))),
            direction="minimize" if self.falls else "maximize",
            load_if_exists=True,
        )
        if self.study.user_attrs.setdefault("experiment", told) != told:
            raise InputError(f"{folder / name}.journal: a study of another experiment than {cfg.name} is; remove it")
        self.study.set_user_attr("experiment", told)
        self.rows: list[dict[str, Any]] = []

    def tune(self, progress: tqdm) -> dict[str, float]:
        """Run all trials that have not run. Returns the best knobs."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):  # one that was killed
            self.study.enqueue_trial(trial.params)
            self.study.tell(trial.number, state=TrialState.FAIL)
        while len(finished := self._finished()) < self.numbers[0]:
            self.study.sampler = _sampler(self.cfg.seed, len(finished))
            trial = self.study.ask({knob.key: _distribution(knob) for knob in self.knobs})
            self.study.tell(trial, self._run(trial.params, self.lengths[0], progress))
        going = finished[: self.numbers[0]]
        scores = {trial.number: self._run(trial.params, self.lengths[0], progress) for trial in going}
        for length, number in zip(self.lengths[1:], self.numbers[1:], strict=True):
            going = sorted(going, key=lambda trial: self._rank(scores[trial.number]))[:number]
            scores = {trial.number: self._run(trial.params, length, progress) for trial in going}
        return min(going, key=lambda trial: self._rank(scores[trial.number])).params

    def _finished(self) -> list[Any]:
        from optuna.trial import TrialState

        return self.study.get_trials(states=(TrialState.COMPLETE,))

    def _rank(self, score: float) -> float:
        return score if self.falls else -score

    def _run(self, params: dict[str, float], length: int, progress: tqdm) -> float:
        """The metric after so many rounds with these knobs: the worst possible if they diverge."""
        told = ",".join(f"{key.rpartition('.')[2]}={value:.6g}" for key, value in params.items())
        label = f"{self.name},rounds={length},{told}"
        place = {"name": f"{self.cfg.name}_tuning", "label": label, "results_dir": str(self.folder / "runs")}
        knobs = [f"{key}={value!r}" for key, value in params.items()]
        ends = [f"++trainer.max_steps={length}", "trainer.max_epochs=-1", f"trainer.val_check_interval={length}"]
        where = [f"{key}='{value}'" for key, value in place.items()]
        overrides = composable([*self.overrides, *knobs, self.held_out, *ends, *where, "logger=csv"])
        folder = RunFolder.of(OmegaConf.create({**place, "seed": self.cfg.seed}))
        if not folder.is_complete:
            ended = run_alone(overrides)
            if not folder.is_complete:
                raise InputError(f"{self.name}: {told}: {ended.reason}")
        worst = float("inf") if self.falls else float("-inf")
        rows = folder.history()
        score = worst if "diverged" in folder.summary() or not rows else float(rows[-1][self.cfg.target.metric])
        row = {"arm": self.name, "rounds": length, **params, self.cfg.target.metric: score}
        if row not in self.rows:
            self.rows.append(row)
            progress.update()
        return score if score == score else worst


def _sampler(seed: int, number: int) -> Any:
    """Proposes the next trial, given how many there are: the same one after a kill."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=1000 * seed + number, n_startup_trials=4)


def _distribution(knob: Knob) -> Any:
    from optuna.distributions import FloatDistribution

    return FloatDistribution(knob.low, knob.high, log=knob.scale == "log")


def tune(overrides: list[str]) -> None:
    """Tune the arms.

    Raises:
        InputError: the experiment declares no knobs, or wrong ones; no length; a trial that fails.
    """
    need("tune.py", "optuna")
    own = dict(o.split("=", 1) for o in overrides if o.partition("=")[0] in OWN)
    given = [o for o in overrides if o.partition("=")[0] not in OWN]
    budget, jobs = (_whole(own, name, default) for name, default in (("budget", 8), ("jobs", 1)))
    cfg, grid = cells([*given, "matrix.seed=null"])
    tuning = Tuning.of(cfg)
    names = _arms(own["arms"]) if "arms" in own else list(tuning.arms)
    if not names:
        raise InputError(
            f"arms: {own.get('arms')!r}; a list of some of {', '.join(tuning.arms)} is needed, or leave it out"
        )
    for name in names:
        if name not in tuning.arms:
            raise InputError(f"arms: {name!r}; one of {', '.join(tuning.arms)} is needed")
    folder = Path(cfg.results_dir) / cfg.name / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    others = _tuned_before(path := folder / "tuned.yaml")
    arms = []
    for cell in grid:
        if (name := cell.folder.path.parent.name) not in names:
            continue
        with initialize_config_module("bench.suite.configs", version_base="1.3"):
            one = compose("train", composable(cell.overrides))
        num_rounds = one.trainer.get("max_steps", -1)
        if num_rounds < 1:
            raise InputError(f"trainer.max_steps: {num_rounds}; trials are shortened by it, a number is needed")
        recipe: Any = OmegaConf.to_container(one.algorithm, resolve=True)
        told = tuning.told(knobs := tuning.knobs(name, recipe), described(one))
        with initialize_config_module("bench.suite.configs", version_base="1.3"):  # before any trial runs
            refuse(compose("train", composable([*cell.overrides, *(f"{knob.key}={knob.low:g}" for knob in knobs)])))
        arms.append(Arm(name, cell.overrides, num_rounds, knobs, tuning, budget, told, cfg, folder))
    total = sum(sum(arm.numbers) for arm in arms)
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(desc=f"tuning {cfg.name}", total=total, unit="run", dynamic_ncols=True) as progress,
    ):
        best = dict(zip(arms, pool.map(lambda arm: arm.tune(progress), arms), strict=True))
    for arm, knobs in best.items():
        _write_csv(folder / f"{arm.name}.csv", arm.rows)
        print(f"{arm.name}: " + ", ".join(f"{key}={value:.4g}" for key, value in knobs.items()))
    settings = [o for o in overrides if o.partition("=")[0] not in ("arms", "jobs")]  # by which no knob changes
    command = f"python scripts/tune.py {' '.join(settings)}"
    tuned = {arm.name: {key: float(f"{value:.4g}") for key, value in knobs.items()} for arm, knobs in best.items()}
    write_whole(path, _experiment(cfg.name, command, {**others, **tuned}))
    print(path)


def _arms(given: str) -> list[str]:
    """The names in a list; none if it is no list of names."""
    try:
        names = yaml.safe_load(given)
    except yaml.YAMLError:
        names = None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _tuned_before(path: Path) -> dict[str, Any]:
    """The arms that an earlier call has tuned.

    Raises:
        InputError: the file holds none.
    """
    if not path.exists():
        return {}
    try:
        arms = yaml.safe_load(path.read_text("utf-8"))["matrix"]["arms"]
    except (TypeError, KeyError, yaml.YAMLError):
        arms = None
    if not isinstance(arms, dict):
        raise InputError(f"{path}: it has no matrix.arms, remove it")
    return arms


def _whole(given: dict[str, str], name: str, default: int) -> int:
    """A whole number, at least 1.

    Raises:
        InputError: another was given.
    """
    value = given.get(name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise InputError(f"{name}: {value}; a whole number, at least 1, is needed")
    return int(value)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """The trials of an arm: knobs, and the metric after so many rounds."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (row["rounds"], *map(str, row.values()))))
    write_whole(path, text.getvalue())


def _experiment(name: str, command: str, arms: dict[str, dict[str, float]]) -> str:
    """An experiment like that of this name, with the knobs of its arms."""
    body = {"defaults": [name, "_self_"], "name": f"{name}_tuned", "tune": None, "matrix": {"arms": arms}}
    told = f"# {name} with the knobs that `{command}` found."
    return f"# @package _global_\n{told}\n{yaml.safe_dump(body, sort_keys=False)}"


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    guarded(lambda: tune(sys.argv[1:]))


if __name__ == "__main__":
    main()
