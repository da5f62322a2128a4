"""The runs of an experiment by label: what tables and figures read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import InputError
from bench.results import RunFolder, differences


@dataclass(frozen=True)
class Arm:
    """The runs of one label of an experiment, such as "sgd" or "sgd,adversary=invert,num_byzantine=2", a seed each."""

    label: str
    runs: Sequence[RunFolder]

    @property
    def name(self) -> str:
        """The label without what is swept."""
        return self.label.split(",")[0]

    @property
    def settings(self) -> dict[str, str]:
        """What is swept, by name."""
        return dict(part.split("=") for part in self.label.split(",")[1:])


def complete_runs(folder: Path, order: Sequence[str]) -> dict[str, list[RunFolder]]:
    """The complete runs of each recipe that has any.

    Raises:
        InputError: two seeds of a recipe differ in more than the seed.
    """
    rank = {recipe: place for place, recipe in enumerate(dict.fromkeys(order))}
    recipes = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: (rank.get(p.name, len(rank)), p.name))
    runs = {p.name: [run for run in map(RunFolder, sorted(p.iterdir())) if run.is_complete] for p in recipes}
    for recipe, folders in runs.items():
        for other in folders[1:]:
            if differing := differences(folders[0].config(), other.config()).keys() - {"seed", "data.seed"}:
                raise InputError(
                    f"{recipe}: {folders[0].path} and {other.path} differ in {', '.join(sorted(differing))}"
                )
    return {recipe: folders for recipe, folders in runs.items() if folders}
