#!/usr/bin/env bash
# The experiments on CIFAR-10, CIFAR-100 and mixed data, one after another on one GPU. Started again, it
# goes on where it stopped; after every run it says how long the experiment will take. Arguments go to every run.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
failed=0
for experiment in sasg_cifar10 sasg_cifar100 resnet20_cifar10 sasg_density sasg_heterogeneous; do
    python scripts/matrix.py "experiment=$experiment" trainer.accelerator=cuda logger=csv "$@" || failed=1
done
python scripts/tables.py
python scripts/figures.py
exit $failed
