"""Draws the figures of experiments: accuracy against costs, or the effect of a swept setting.

    python scripts/figures.py                     # all experiments with results and a `figure:` in their file
    python scripts/figures.py signs_mnist_iid     # one experiment
    python scripts/figures.py signs_mnist_iid link=gather link.bandwidth_bps=10Gbit link.latency_s=50us

Writes results/<experiment>/figure.{png,pdf}; on another network, views/<experiment>/figure.{png,pdf}.
"""

if __name__ == "__main__":  # before the imports that take long
    from bench.suite.scripts.waiting import say_what_takes_long

    say_what_takes_long()

import argparse

from bench.errors import InputError
from bench.findings.experiments import Experiment, read_experiments
from bench.findings.figures import digest, figure, save
from bench.findings.view import AS_RECORDED
from bench.suite.scripts.cli import each, guarded
from bench.suite.scripts.views import add_view, read_view


def draw(args: argparse.Namespace) -> None:
    """Draw the figures of the named experiments; without names, of all that have a `figure:`."""
    names, view = read_view(args)
    if view.rounds is not None:
        raise InputError("rounds: a figure shows all of them; scripts/tables.py takes a stretch")

    def save_figure(experiment: Experiment) -> None:
        if names or experiment.spec.get("figure"):
            folder = experiment.folder if view == AS_RECORDED else args.out / experiment.name
            save(figure(experiment), folder, digest(experiment))
            print(folder / "figure.png")

    each(read_experiments(names, args.results, view), save_figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_view(parser)
    args = parser.parse_args()
    guarded(lambda: draw(args))


if __name__ == "__main__":
    main()
