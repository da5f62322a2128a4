"""Measures the error of a majority vote against the number of voters, for comparison with its theoretical bound.

    python scripts/vote_noise.py

At fixed parameters, M workers vote on the sign of the gradient g of all of MNIST, each from a batch of 16. The loss of
a vote is Σ|g_i| over the entries it gets wrong; its mean is at most ‖σ‖₁/√M, where σ_i is the standard deviation of
one worker's g_i (Bernstein et al., ICLR 2019, proof of Theorem 2). Shown as a share of ‖g‖₁, at the initial parameters
of 784-512-10 and after 600 rounds of signSGD with majority vote, 15 workers, γ = 0.001. Writes
results/vote_noise/{noise.csv, figure.png, figure.pdf}; scripts/figures.py draws the figure anew.
"""

import argparse
import csv
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning
import matplotlib.style
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

import bench
from bench.aggregators import MajorityVote
from bench.compressors import Sign
from bench.findings.figures import LOOK, save
from bench.findings.look import COLORS
from bench.gradients.batches import Dealt, as_shards
from bench.gradients.buffers import WorkerBuffers
from bench.gradients.engines import LoopEngine
from bench.gradients.layout import Layout
from bench.kernels.noise import Noise
from bench.runs.module import Classifier
from bench.runs.results import write_whole
from bench.suite.datamodules.images import ImageSet
from bench.suite.datamodules.mnist import MNIST
from bench.suite.models.mlp import mlp
from bench.suite.scripts.bare import fit, keep_quiet
from bench.suite.scripts.cli import guarded

VOTERS = (1, 3, 7, 15, 31)
BATCH_SIZE = 16
SEED = 1


@dataclass(frozen=True)
class Measured:
    """At one point of training. `shares`: by number of voters, (repeats,) shares of ‖g‖₁ voted wrong. `ratio`:
    ‖σ‖₁/‖g‖₁."""

    shares: dict[int, Tensor]
    ratio: float

    def bound(self, num_voters: int) -> float:
        """The upper bound on the mean share."""
        return self.ratio / num_voters**0.5


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
    shares: dict[int, list[Tensor]] = {num_voters: [] for num_voters in VOTERS}
    variance = torch.zeros_like(gradient)
    for _ in range(repeats):
        samples = torch.randint(len(images), (max(VOTERS), BATCH_SIZE), generator=generator)
        noise = [Noise(SEED, 0, rank) for rank in range(max(VOTERS))]
        shards = as_shards(Dealt(images[samples]))
        rows = engine.gradients(module.training_step, shards, noise).dense(torch.arange(max(VOTERS)))
        variance += (rows - gradient).square().mean(dim=0) / repeats
        for num_voters in VOTERS:
            message = Sign().compress(rows[:num_voters], (layout.num_parameters,), noise)
            vote = MajorityVote().aggregate(message, None, noise[0])
            shares[num_voters].append(weights[vote != gradient.sign()].sum())  # an entry whose g is 0 adds nothing
        progress.update()
    ratio = float(variance.sqrt().sum() / gradient.abs().sum())
    return Measured({num_voters: torch.stack(values) for num_voters, values in shares.items()}, ratio)


def redraw(folder: Path) -> None:
    """Draw the figure of a folder's noise.csv."""
    with (folder / "noise.csv").open(encoding="utf-8", newline="") as lines:
        shares: dict[int, list[float]] = {}
        for row in csv.DictReader(lines):
            shares.setdefault(int(row["rounds"]), []).append(float(row["wrong_share_mean"]))
    save(drawing(shares), folder, "noise.csv")


def drawing(shares: dict[int, list[float]]) -> Figure:
    """Draw a line of measurements, the mean share by VOTERS, for each number of rounds, and the slope of the bound."""
    with matplotlib.style.context(LOOK):
        figure = Figure(figsize=(3.6, 2.7), layout="constrained")
        axes = figure.subplots()
        last = shares[0][-1]
        axes.plot(VOTERS, [last * (VOTERS[-1] / m) ** 0.5 for m in VOTERS], ":", color="#666666", label="slope of 1/√M")
        for (num_rounds, mean), style in zip(shares.items(), ("-", "--"), strict=True):
            label = f"after {num_rounds} rounds" if num_rounds else "at the first parameters"
            axes.plot(VOTERS, mean, style, marker="o", markersize=3, color=COLORS["signsgd_mv"], label=label)
        axes.set(xscale="log", yscale="log", xlabel="voters M", ylabel="share of ‖g‖₁ voted wrong")
        axes.set_xticks(VOTERS, [str(m) for m in VOTERS])
        axes.set_yticks(ticks := (0.05, 0.1, 0.2, 0.5, 1), [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.legend()
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
        writer.writerow(["rounds", "voters", "wrong_share_mean", "wrong_share_std", "n", "bound"])
        for num_rounds, at in measured.items():
            for num_voters, values in at.shares.items():
                figures = [f"{x:.6f}" for x in (float(values.mean()), float(values.std()), at.bound(num_voters))]
                writer.writerow([num_rounds, num_voters, *figures[:2], len(values), figures[2]])
        write_whole(args.results / "vote_noise" / "noise.csv", text.getvalue())
        redraw(args.results / "vote_noise")
        print(text.getvalue(), end="")

    guarded(run)


if __name__ == "__main__":
    main()
