"""The figures of experiments: accuracy against costs, or what a swept setting does.

    python scripts/figures.py                     # all experiments that have results and a `figure:`
    python scripts/figures.py signs_mnist_iid     # one

Writes results/<experiment>/figure.{png,pdf}.
"""

import argparse
from pathlib import Path

from bench.arms import Arm, complete_runs
from bench.errors import InputError
from bench.figures import digest, figure, save
from scripts.cli import guarded
from scripts.tables import experiments_in, specified


def draw(experiment: str, results: Path) -> None:
    """Draw the figure of one experiment.

    Raises:
        InputError: it has none, or no results.
    """
    config, order = specified(experiment)
    if not config.get("figure"):
        raise InputError(f"experiment: {experiment!r}; its file has no figure:")
    if experiment not in (there := experiments_in(results)):
        raise InputError(f"experiment: {experiment!r} has no complete run in {results}; there is {', '.join(there)}")
    arms = [Arm(label, runs) for label, runs in complete_runs(results / experiment, order).items()]
    save(figure(config["figure"], arms), results / experiment, digest(config["figure"], arms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help="default: all with results")
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()

    def redraw() -> None:
        for experiment in args.experiments or experiments_in(args.results):
            if args.experiments or specified(experiment)[0].get("figure"):
                draw(experiment, args.results)

    guarded(redraw)


if __name__ == "__main__":
    main()
