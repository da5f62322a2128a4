"""Lazy signs are what the equations of LASG-WK2 and of majority vote give together, written out worker by worker."""

from copy import deepcopy
from dataclasses import replace

import torch

from bench.laws.toys import Toy, flat, loader, toy_data, train
from bench.rules import LASGWK2
from bench.tests.found import RECIPES

M, ROUNDS, AGE, LR = 4, 60, 5, 0.002


def gradient(network: Toy, own: list[torch.Tensor]) -> torch.Tensor:
    loss = network.training_step(own)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


def test_lazy_signs() -> None:
    """A worker votes anew iff ‖∇f(w^t; ξ^t) − ∇f(w^{t−τ}; ξ^t)‖² > (c/M²) Σ ‖w^{t+1−i} − w^{t−i}‖², else its last vote
    counts; w ← w − γ sign(votes), ties being plus."""
    coefficient = 0.5
    recipe = replace(RECIPES["lazy_signs"], rule=LASGWK2(coefficient, max_age=AGE))
    ours = train(recipe, lambda: Toy(lr=LR), data=toy_data(M * 4 * ROUNDS), rounds=ROUNDS)

    torch.manual_seed(3)
    network = Toy(lr=LR)
    then, last = [0] * M, [torch.Tensor()] * M  # the round of a worker's last upload, and its vote
    path, networks, uploads = [flat(network)], {}, 0
    for t, batch in zip(range(ROUNDS), loader(toy_data(M * 4 * ROUNDS), M, range(M), 4), strict=False):
        networks[t] = deepcopy(network)
        moves = [(path[-i] - path[-i - 1]).square().sum() for i in range(1, min(AGE, len(path)))]
        threshold = coefficient / LR / M**2 * sum(moves)
        for m, own in enumerate(zip(*(part.chunk(M) for part in batch), strict=True)):
            new = gradient(network, list(own))
            change = (new - gradient(networks[then[m]], list(own))).square().sum()
            if t < AGE or t - then[m] > AGE or change > threshold:
                then[m], last[m] = t, torch.where(new >= 0, 1.0, -1.0)
                uploads += 1
        votes = torch.where(torch.stack(last).sum(dim=0) >= 0, 1.0, -1.0)
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(path[-1] - LR * votes, network.parameters())
        path.append(flat(network))
    assert M * AGE < uploads < 0.9 * M * ROUNDS, "some were skipped, and not only because they had to be sent"
    assert ours.ledger["uploads"] == uploads
    torch.testing.assert_close(ours.weights, path[-1])
