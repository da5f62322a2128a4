"""Measures the error of a majority vote against the number of voters, for comparison with its theoretical bound.

    python scripts/vote_noise.py

At fixed parameters, M workers vote on the sign of the gradient g of all of MNIST, each from a batch of 16; zeros and
ties vote +1 (`plus`) or 0 (`zero`). A vote v falls short of the true signs by Σ|g_i|(1 − sign(g_i) v_i), twice |g_i| of
a wrong entry. Where each g_i has symmetric noise of one peak, as the bound on signSGD with majority vote assumes
(Bernstein et al., ICML 2018, Theorem 2), the mean is at most its noise term, 2‖σ‖₁/√M, σ_i being the standard deviation
of one worker's g_i; noise of entries that are mostly zero, whose votes are +1, is not of this kind. Both are shown as
shares of ‖g‖₁, at the initial parameters of 784-512-10 and after 600 rounds of signSGD with majority vote, 15 workers,
γ = 0.001. Writes results/vote_noise/{noise.csv, figure.png, figure.pdf}; scripts/figures.py draws the figure anew.
"""

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import lightning
import matplotlib.style
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

import bench
from bench.aggregators import MajorityVote
from bench.compressors import Sign, Ternary
from bench.findings.look import COLORS
from bench.findings.paper import LOOK, save
from bench.gradients.batches import Dealt, as_shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines import LoopEngine
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.runs.module import Classifier
from bench.runs.whole import write_whole
from bench.suite.datamodules.images import ImageSet
from bench.suite.datamodules.mnist import MNIST
from bench.suite.models.mlp import mlp
from bench.suite.scripts.bare import fit, keep_quiet
from bench.suite.scripts.cli import guarded

VOTERS = (1, 3, 7, 15, 31)
VOTES = {"plus": (Sign(), MajorityVote()), "zero": (Ternary(), MajorityVote("zero"))}
"""What workers send, and what the server makes of it, by what a zero and a tie become."""
BATCH_SIZE = 16
SEED = 1


@dataclass(frozen=True)
class Measured:
    """At one point of training. `shares`: by what a zero becomes and the number of voters, (repeats,) shares of ‖g‖₁ by
    which votes fall short. `ratio`: ‖σ‖₁/‖g‖₁."""

    shares: dict[tuple[str, int], Tensor]
    ratio: float

    def bound(self, num_voters: int) -> float:
        """The bound's noise term, 2‖σ‖₁/√M, as a share."""
        return 2 * self.ratio / num_voters**0.5


def measure(module: Classifier, images: ImageSet, repeats: int, progress: tqdm) -> Measured:
    """Vote `repeats` times at the module's parameters."""
    layout = Layout(module.named_parameters())
    gradient = torch.zeros_like(layout.vector)
    for chunk in torch.arange(len(images)).split(5000):
        loss = module.training_step(images[chunk]) * len(chunk) / len(images)
        gradient += torch.cat([g.flatten() for g in torch.autograd.grad(loss, layout.parameters)])
    weights = gradient.abs() / gradient.abs().sum()
    engine = LoopEngine(module, layout, WorkerBuffers(module, max(VOTERS)))
    generator = torch.Generator().manual_seed(SEED)
    shares: dict[tuple[str, int], list[Tensor]] = {key: [] for key in product(VOTES, VOTERS)}
    variance = torch.zeros_like(gradient)
    for _ in range(repeats):
        samples = torch.randint(len(images), (max(VOTERS), BATCH_SIZE), generator=generator)
        noise = [Noise(SEED, 0, rank) for rank in range(max(VOTERS))]
        shards = as_shards(Dealt(images[samples]))
        rows = engine.gradients(module.training_step, shards, noise).dense(torch.arange(max(VOTERS)))
        variance += (rows - gradient).square().mean(dim=0) / repeats
        for zeros, num_voters in shares:
            compressor, majority = VOTES[zeros]
            message = compressor.compress(rows[:num_voters], (layout.num_parameters,), noise)
            vote = majority.aggregate(message, None, noise[0])
            shares[zeros, num_voters].append((weights * (1 - gradient.sign() * vote)).sum())
        progress.update()
    ratio = float(variance.sqrt().sum() / gradient.abs().sum())
    return Measured({key: torch.stack(values) for key, values in shares.items()}, ratio)


def redraw(folder: Path) -> None:
    """Draw the figure of a folder's noise.csv."""
    with (folder / "noise.csv").open(encoding="utf-8", newline="") as lines:
        save(drawing(list(csv.DictReader(lines))), folder, "noise.csv")


def drawing(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Draw a panel for each number of rounds: measurements by VOTERS, a line for each of VOTES, and the bound.

    Args:
        rows: of noise.csv.
    """
    with matplotlib.style.context(LOOK):
        points = list(dict.fromkeys(row["rounds"] for row in rows))
        figure = Figure(figsize=(2.6 * len(points) + 0.6, 2.7), layout="constrained")
        grid = figure.subplots(1, len(points), sharey=True, squeeze=False)
        for axes, rounds in zip(grid[0], points, strict=True):
            for zeros, recipe, look in (
                ("plus", "signsgd_mv", {"linewidth": 3, "alpha": 0.4}),  # seen beneath the other
                ("zero", "sparse_signsgd", {"marker": "o", "markersize": 3}),
            ):
                found = [row for row in rows if (row["rounds"], row["zeros"]) == (rounds, zeros)]
                means = [float(row["short_share_mean"]) for row in found]
                axes.plot(VOTERS, means, **look, color=COLORS[recipe], label=f"zeros and ties: {zeros}")
            axes.plot(VOTERS, [float(row["bound"]) for row in found], ":", color="#666666", label="bound, 2‖σ‖₁/√M")
            title = f"after {rounds} rounds" if int(rounds) else "at the first parameters"
            axes.set(xscale="log", yscale="log", xlabel="voters M", title=title)
            axes.set_xticks(VOTERS, [str(m) for m in VOTERS])
            axes.set_yticks(ticks := (0.1, 0.3, 1, 3, 10), [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        grid[0][0].set_ylabel("shortfall of a vote, in ‖g‖₁")
        grid[0][0].legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100, help="votes at each point")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    keep_quiet()

    def run() -> None:
        lightning.seed_everything(SEED, verbose=False)
        data = MNIST(data_dir=args.data_dir, batch_size=BATCH_SIZE, seed=SEED)
        data.prepare_data()
        arrays = data.load()
        images = ImageSet(arrays.x_train, arrays.y_train, data.mean, data.std, torch.device("cpu"))
        module = Classifier(mlp(), partial(torch.optim.SGD, lr=0.001))
        with tqdm(desc="votes", total=2 * args.repeats, leave=False, disable=None) as progress:
            measured = {0: measure(module, images, args.repeats, progress)}
            fit(bench.CompressedStrategy("signsgd_mv", workers=15, seed=SEED), module, data, num_rounds=600)
            measured[600] = measure(module, images, args.repeats, progress)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["rounds", "zeros", "voters", "short_share_mean", "short_share_std", "n", "bound"])
        for num_rounds, at in measured.items():
            for (zeros, num_voters), values in at.shares.items():
                figures = [f"{x:.6f}" for x in (float(values.mean()), float(values.std()), at.bound(num_voters))]
                writer.writerow([num_rounds, zeros, num_voters, *figures[:2], len(values), figures[2]])
        write_whole(args.results / "vote_noise" / "noise.csv", text.getvalue())
        redraw(args.results / "vote_noise")
        print(text.getvalue(), end="")

    guarded(run)


if __name__ == "__main__":
    main()
