"""Draws the figures of experiments: accuracy against costs, or the effect of a swept setting.

    python scripts/figures.py                     # all experiments with results and a `figure:` in their file
    python scripts/figures.py signs_mnist_iid     # one experiment

Writes results/<experiment>/figure.{png,pdf}.
"""

import argparse
from pathlib import Path

from bench.findings.experiments import Experiment, read_experiments
from bench.findings.figures import digest, figure, save
from scripts.cli import each, guarded


def draw(names: list[str], results: Path) -> None:
    """Draw the figures of the named experiments; without names, of all that have a `figure:`."""

    def save_figure(experiment: Experiment) -> None:
        if names or experiment.spec.get("figure"):
            save(figure(experiment), experiment.folder, digest(experiment))
            print(experiment.folder / "figure.png")

    each(read_experiments(names, results), save_figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help="default: all with results")
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    guarded(lambda: draw(args.experiments, args.results))


if __name__ == "__main__":
    main()
