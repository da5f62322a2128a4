"""What each recipe's round takes for one model, measured for several numbers of workers, and the table of who pays."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch

from bench.algorithm import Algorithm
from bench.errors import InputError
from bench.findings.look import engineering
from bench.findings.pay import (
    FORMATS,
    Network,
    Step,
    break_even_bps,
    compressed_step,
    dense_steps,
    on,
    quickest,
    verdict,
)
from bench.findings.subject import Subject
from bench.findings.work import Work, measure, rounded_s
from bench.recipes import load_recipe

SEEN = 8
"""The most workers whose gradients are computed."""
LARGER = (64, 256)
"""Workers for whom a map's sharded and summed rounds are timed, with the gradients of those."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BASELINES = ("sgd",)
"""Recipes that are dense all-reduces themselves."""


@dataclass(frozen=True)
class Prices:
    """What rounds of a model take.

    Attributes:
        dim: d.
        recipes: by name.
        works: by recipe and number of workers, ascending. Of the larger numbers, whose messages were not decoded whole
            by one worker, the answers are not that long.
        rounding_s: of the dense formats.
        refused: recipes that cannot treat this model, and why.
    """

    dim: int
    recipes: Mapping[str, Algorithm]
    works: Mapping[str, Mapping[int, Work]]
    rounding_s: Mapping[str, float]
    refused: Mapping[str, str]

    def work(self, name: str, num_workers: int) -> Work:
        """The work of a recipe for any number of workers, between and beyond those measured.

        Seconds follow the line through those measured that rises or is level: two noisy timings alone may fall. Answers
        of sparse messages grow by the factor by which they grew when M last doubled, and are never longer than dense
        ones.
        """
        measured = self.works[name]
        if len(measured) == 1 and num_workers in measured:
            return measured[num_workers]
        whole = sorted(size for size, work in measured.items() if "gather" in work.seconds)
        low, high = _around(whole, num_workers)
        a, b = measured[low], measured[high]
        growth = math.log(max(1.0, b.answer_bits / a.answer_bits)) / math.log(high / low)
        answer_bits = min(32.0 * self.dim, a.answer_bits * (num_workers / low) ** growth)
        if num_workers in whole:
            answer_bits = measured[num_workers].answer_bits
        seconds = {
            collective: _line_at(
                num_workers,
                {size: work.seconds[collective] for size, work in measured.items() if collective in work.seconds},
            )
            for collective in a.seconds
        }
        return Work(b.upload_bits, b.offer_bits, round(answer_bits), seconds)

    def plain(self, name: str) -> dict[str, Any]:
        """As values for the page."""
        recipes = {
            recipe: {
                "lazy": algorithm.rule.adaptive,
                "second_pass": algorithm.rule.second_pass,
                "overlaps": algorithm.overlaps,
                "works": {size: asdict(work) for size, work in self.works[recipe].items()},
            }
            for recipe, algorithm in self.recipes.items()
        }
        return {"name": name, "dim": self.dim, "rounding_s": dict(self.rounding_s), "recipes": recipes}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Those that `plain` describes.

        Raises:
            InputError: a recipe that there is not.
        """
        works = {
            name: {int(size): Work(**work) for size, work in recipe["works"].items()}
            for name, recipe in plain["recipes"].items()
        }
        return cls(plain["dim"], {name: load_recipe(name) for name in works}, works, plain["rounding_s"], {})

    def dense(self, network: Network) -> list[Step]:
        return dense_steps(network, self.dim, self.rounding_s)

    def steps(self, network: Network, skips: Mapping[str, float]) -> list[Step]:
        """The quickest step of each recipe."""
        return [
            compressed_step(self.recipes[name], self.work(name, network.workers), network, skips.get(name, 0.0))
            for name in self.works
        ]

    def table(self, network: Network, skips: Mapping[str, float], head: str) -> str:
        """Who pays, as text."""
        dense, steps = self.dense(network), self.steps(network, skips)
        best = quickest(dense)
        rows = [
            (step, f"{best.total_s / step.total_s:.2f}", self._break_even(step.name, network, skips)) for step in steps
        ]
        rows.sort(key=lambda row: row[0].total_s)
        lines = [head, "", _line(HEAD)]
        lines += [_line(_cells(step, f"{best.total_s / step.total_s:.2f}", "")) for step in dense]
        lines += [_line(_cells(*row)) for row in rows]
        lines += [
            "",
            "ms a step; ratio: of the best dense step to this one, above 1 is quicker; pays at: the bandwidths at",
            "which it is quicker. A step is not an accuracy: experiment= answers in time to a target.",
        ]
        lines.append("compress: own work, measured on one core of this machine's CPU; on an accelerator it is another.")
        if network.workers > SEEN:
            told = f"Gradients of {SEEN} workers were computed; answers, and the work of gather, are extrapolated."
            lines.append(told)
        lines += [f"not here: {name}: {why}" for name, why in self.refused.items()]
        lazy = [name for name in self.works if self.recipes[name].rule.adaptive and not skips.get(name)]
        if lazy:
            lines.append(f"{', '.join(lazy)}: as if no upload were skipped; skips= says how many are.")
        return "\n".join([*lines, "", verdict(steps, dense)])

    def _break_even(self, name: str, network: Network, skips: Mapping[str, float]) -> str:
        recipe, work = self.recipes[name], self.work(name, network.workers)
        found = break_even_bps(
            lambda bps: compressed_step(recipe, work, on(network, bps), skips.get(name, 0.0)).total_s,
            lambda bps: quickest(self.dense(on(network, bps))).total_s,
        )
        if found is None:
            return "never"
        least, most = found
        above = f"{engineering(least)}bit/s" if least else ""
        below = "" if math.isinf(most) else f"{engineering(most)}bit/s"
        if above and below:
            return f"{above} to {below}"
        return f"above {above}" if above else f"below {below}" if below else "any"


HEAD = ("", "carried by", "total", "compute", "compress", "uplink", "answer", "hidden", "ratio", "pays at")
WIDTHS = (16, 11, 10, 10, 10, 10, 10, 10, 8, 26)


def _line(cells: Iterable[str]) -> str:
    return "".join(
        cell.ljust(width) if at < 2 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    ).rstrip()


def _cells(step: Step, ratio: str, pays: str) -> Sequence[str]:
    times = (step.total_s, step.compute_s, step.compression_s, step.uplink_s, step.answer_s, step.hidden_s)
    return step.name, step.collective, *(f"{1e3 * s:.4g}" for s in times), ratio, pays


def _line_at(wanted: int, seconds: Mapping[int, float]) -> float:
    """The line of least squares through seconds by number of workers, rising or level and not below 0 at the origin."""
    size, second = statistics.fmean(seconds), statistics.fmean(seconds.values())
    slope = statistics.linear_regression(list(seconds), list(seconds.values())).slope
    return second + min(max(slope, 0.0), second / size) * (wanted - size)


def _around(sizes: Sequence[int], wanted: int) -> tuple[int, int]:
    """The two measured sizes between which a number lies, or the last two if it lies beyond."""
    if len(sizes) < 2:
        raise InputError(f"workers: {wanted}; measured for {sizes[0]} only")
    above = next((i for i, size in enumerate(sizes) if size > wanted), len(sizes) - 1)
    above = max(1, above)
    return sizes[above - 1], sizes[above]


def measure_prices(
    recipes: Mapping[str, Algorithm],
    subject: Subject,
    num_workers: int,
    for_map: bool,
    bar: Callable[[Sequence[str]], Any],
) -> Prices:
    """Measure every recipe on a model.

    Args:
        recipes: by name; those that are dense all-reduces are left out.
        subject: the model.
        num_workers: M.
        for_map: whether other numbers of workers will be asked for.
        bar: shows progress over names.

    Raises:
        InputError: no recipe can treat this model.
    """
    seen = min(num_workers if not for_map else SEEN, SEEN)
    gradients = torch.stack([subject.gradient(number) for number in range(seen)])
    few = num_workers <= SEEN and not for_map
    sizes, larger = ([num_workers], []) if few else ([2, 4, SEEN], LARGER if for_map else [num_workers])
    works: dict[str, dict[int, Work]] = {}
    refused: dict[str, str] = {}
    for name in bar([name for name in recipes if name not in BASELINES]):
        try:
            found = {size: measure(recipes[name], gradients[:size], subject.layout, size) for size in sizes}
            if found[sizes[-1]].seconds.keys() != {"gather"}:
                found |= {size: measure(recipes[name], gradients, subject.layout, size, False) for size in larger}
        except InputError as error:
            refused[name] = str(error)
            continue
        works[name] = found
    if not works:
        raise InputError(f"recipes: {', '.join(recipes)}; none is left to compare: {refused or 'they are dense'}")
    rounding = {name: rounded_s(gradients[0], DTYPES[name]) for name in FORMATS}
    return Prices(gradients.shape[1], {name: recipes[name] for name in works}, works, rounding, refused)
