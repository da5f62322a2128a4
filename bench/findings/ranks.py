"""Which place each arm takes among all, seed by seed."""

from collections.abc import Mapping

from bench.findings.sample import Sample


def ranks(costs: Mapping[str, Sample]) -> dict[str, Sample]:
    """The places of arms by a cost, the least first, in every seed in which an arm has it.

    Args:
        costs: by the labels of arms. An arm that lacks a seed's cost, as it missed the target, diverged or was not run,
            shares the last place in it with its like.

    Returns:
        Places from 1 by label; of equal costs all have the best one.
    """
    by_arm = {label: dict(zip(cost.seeds, cost.values, strict=True)) for label, cost in costs.items()}
    seeds = sorted({seed for own in by_arm.values() for seed in own})
    found: dict[str, list[float]] = {label: [] for label in costs}
    for seed in seeds:
        there = [own[seed] for own in by_arm.values() if seed in own]
        for label, own in by_arm.items():
            found[label].append(1 + sum(cost < own.get(seed, float("inf")) for cost in there))
    return {label: Sample(tuple(places), len(seeds), seeds=tuple(seeds)) for label, places in found.items()}
