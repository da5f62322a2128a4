"""Draws the figures of experiments: accuracy against costs, or the effect of a swept setting.

    python scripts/figures.py                     # all experiments with results and a `figure:` in their file
    python scripts/figures.py signs_mnist_iid     # one experiment
    python scripts/figures.py signs_mnist_iid link=gather link.bandwidth_bps=10Gbit link.latency_s=50us
    python scripts/figures.py scale               # what was measured; so are testbed, vote_noise and pay/<model>
    python scripts/figures.py skips               # of several experiments: who skips when

Writes results/<experiment>/figure.{png,pdf}; on another network, views/<experiment>/figure.{png,pdf}.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse
from importlib import import_module
from pathlib import Path

from bench.errors import InputError
from bench.findings import skips
from bench.findings.experiments import Experiment, read_experiments
from bench.findings.figures import digest, figure
from bench.findings.paper import save
from bench.findings.view import AS_RECORDED
from bench.suite.scripts.cli import each, guarded
from bench.suite.scripts.views import add_view, read_view

MEASURED = {
    "pay/*/prices.json": "pay",
    "scale/table.csv": "scale",
    "testbed/measured.json": "validation",
    "vote_noise/noise.csv": "vote_noise",
}
"""What scripts measured besides experiments, and the script that draws it."""


def measured(results: Path) -> dict[str, str]:
    """The folders of what was measured, by their names in `results`, with the scripts that draw them."""
    found = {file.parent: script for data, script in MEASURED.items() for file in results.glob(data)}
    return {folder.relative_to(results).as_posix(): script for folder, script in found.items()}


def draw(args: argparse.Namespace) -> None:
    """Draw the figures of the named experiments; without names, of all that have a `figure:`, what was measured, and
    who skips where any may."""
    names, view = read_view(args)
    if view.rounds is not None:
        raise InputError("rounds: a figure shows all of them; scripts/tables.py takes a stretch")

    def save_figure(experiment: Experiment) -> None:
        if names or experiment.spec.get("figure"):
            folder = experiment.folder if view == AS_RECORDED else args.out / experiment.name
            save(figure(experiment), folder, digest(experiment))
            print(folder / "figure.png")

    if view == AS_RECORDED:
        others = measured(args.results)
        for name in others.keys() & names if names else others:
            import_module(f"bench.suite.scripts.{others[name]}").redraw(args.results / name)
            print(args.results / name / "figure.png")
        panels = skips.lazy(args.results) if not names or "skips" in names else {}
        if panels or "skips" in names:
            save(skips.drawing(panels), args.results / "skips", skips.digest(panels))
            print(args.results / "skips" / "figure.png")
        if names and not (names := [name for name in names if name not in {*others, "skips"}]):
            return
    each(read_experiments(names, args.results, view), save_figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_view(parser)
    args = parser.parse_intermixed_args()
    guarded(lambda: draw(args))


if __name__ == "__main__":
    main()
